"""The default tier has at least one test of every law, verb, router and fault.

The default tier is what `bash scripts/test.sh` runs: the tests without the marker `slow`. The
tables name a test, or one case of it, for each; the full tier has more of every kind.
"""

import subprocess
import sys
from pathlib import Path

import cases
import disk_cases
import pytest

from moe_jax import cli, config
from moe_jax.routers import ROUTERS

ROOT = Path(__file__).parent.parent
MESH = "tests/invariance/test_mesh_expert_choice.py"
STEP = "tests/training/test_step.py"
CLI = "tests/test_cli.py"
ENDS = "tests/faults/test_ends.py"
JSONL = "tests/training/metric_writers/test_jsonl_writer.py"
FAULT_TOLERANCE = "tests/training/fault_tolerance"
LOCK = "tests/training/run_directory/test_directory_lock.py"
GUARD = "tests/training/test_loss_spike_guard.py"
CHECKPOINTS = "tests/training/checkpointing/test_checkpoint_manager.py"
LOOP = "tests/training/test_loop.py"

LAWS = {
    "oracle": [
        "tests/dispatch/test_transports.py::test_forward_equals_the_equation",
        "tests/dispatch/test_transports.py::test_gradients_equal_the_oracles",
        "tests/dispatch/test_routed.py::test_every_router_gives_the_same_on_every_transport",
    ],
    "mesh": [
        f"{MESH}::test_pools_of_one_device",
        f"{MESH}::test_implicit_expert_parallelism",
        f"{MESH}::test_dense_model",
        f"{MESH}::test_settings[accumulation 2, remat dots_no_batch, num_layers 4]",
        "tests/invariance/test_mesh_token_choice.py::test_step",
        f"{STEP}::test_step_is_plain_gradient_descent[2]",
        f"{STEP}::test_remat_and_scanned_layers_change_nothing",
    ],
    "causality": ["tests/invariance/test_causality.py::test_a_router_that_lies_is_caught"],
    "resume": ["tests/e2e/test_resume.py::test_ten_steps_and_ten_more_are_twenty"],
    "router gradient": [f"{STEP}::test_every_learned_router_gets_a_gradient"],
    "counting": [
        "tests/test_flops.py::test_totals_of_the_papers_table",
        "tests/test_flops.py::test_forward_flops_are_xlas",
    ],
    "compile once": [f"{STEP}::test_a_run_compiles_its_step_once"],
    "identity": ["tests/models/test_decoder.py::test_one_expert_is_the_dense_model"],
    "config": [
        "tests/test_config.py::test_every_run_resolves_and_uses_all_its_macros",
        "tests/test_config.py::test_mistakes_are_one_line",
    ],
}
VERBS = {
    "train": f"{CLI}::test_training_leaves_a_complete_run_directory",
    "finetune": "tests/commands/test_finetune.py::test_a_study_from_its_gin_file_to_its_report",
    "eval": f"{CLI}::test_eval_gives_the_figures_of_training",
    "generate": f"{CLI}::test_generate_writes_text",
    "calibrate": "tests/runs/test_calibration.py::test_the_calibrated_run_is_evaluated_as_any_run",
    "status": "tests/runs/test_status.py::test_a_run_that_goes",
    "plot": "tests/runs/test_curves.py::test_two_runs_in_one_png",
    "config": "tests/commands/config/test_sharding.py::test_a_mesh_that_does_not_fit_is_refused",
    "data": "tests/commands/test_data.py::test_show",
    "compare": "tests/commands/test_compare.py::test_report_of_runs_that_exist",
    "compile": "tests/commands/test_compile.py::test_what_fits_is_printed_and_written",
    "bench": "tests/commands/test_bench.py::test_routing_rows",
}
# Whole runs where the process has to die, the parts of a run where that is enough.
FAULTS = {
    "sigterm": f"{ENDS}::test_a_signal_saves_the_step_it_finishes[sigterm-143]",
    "sigint": f"{FAULT_TOLERANCE}/test_graceful_shutdown.py::test_the_first_signal_is_noted[2]",
    "preempted": f"{FAULT_TOLERANCE}/test_preemption.py::test_preemption_is_told_once",
    "killed": f"{LOCK}::test_a_dead_owner_is_taken_over_at_once",
    "killed_in_save": f"{CHECKPOINTS}::test_a_save_that_was_cut_off_is_no_checkpoint",
    "killed_after_save": f"{LOOP}::test_a_step_is_on_record_before_it_is_saved",
    "source_fails": f"{LOOP}::test_data_that_fail_are_one_line_with_what_is_saved",
    "source_hangs": f"{FAULT_TOLERANCE}/test_watchdog.py::test_a_process_that_hangs_ends",
    "spike": f"{GUARD}::test_a_skipped_step_changes_nothing_but_the_counts",
    "diverged": f"{LOOP}::test_too_many_bad_losses_in_a_row_stop_the_run[3]",
    "flipped": f"{CHECKPOINTS}::test_damage_falls_back_to_the_checkpoint_before[bits-variables]",
    "truncated": f"{CHECKPOINTS}::test_damage_falls_back_to_the_checkpoint_before[cut-variables]",
    "deleted": f"{CHECKPOINTS}::test_damage_falls_back_to_the_checkpoint_before[gone-variables]",
    "full_disk": f"{JSONL}::test_records_wait_for_a_full_disk",
    "vanished": f"{CHECKPOINTS}::test_a_save_that_fails_is_reported_and_the_next_is_tried",
}
# A registered router goes through a model and its gradients; a file describes a run.
REGISTERED = {
    name: f"tests/invariance/test_causality.py::test_every_router_is_what_it_says[{name}-batch]"
    for name in ROUTERS
}
FILES = [name for name in config.shipped() if name.startswith("routers/")]


@pytest.fixture(scope="module")
def default_tier(request):
    """Returns the tests of the default tier, as pytest names them."""
    named = [test for tests in LAWS.values() for test in tests]
    named += [*VERBS.values(), *FAULTS.values(), *REGISTERED.values()]
    named += ["tests/test_config.py::test_every_file_works_on_top_of_a_run"]
    items = request.session.items
    collected = [item.nodeid for item in items if item.get_closest_marker("slow") is None]
    files = {test.partition("::")[0] for test in named}
    if files <= {item.nodeid.partition("::")[0] for item in items}:
        return collected
    # Only some of the files were asked for.
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-n", "0", "-m", "not slow"]
    shown = subprocess.run(
        [*command, *sorted(files)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return [line for line in shown.stdout.splitlines() if "::" in line]


def assert_has(default_tier, test):
    assert any(name == test or name.startswith(f"{test}[") for name in default_tier), test


@pytest.mark.parametrize("law", LAWS)
def test_every_law(default_tier, law):
    for test in LAWS[law]:
        assert_has(default_tier, test)


def test_every_verb(default_tier):
    assert set(VERBS) == {verb.NAME for verb in cli.VERBS}
    for test in VERBS.values():
        assert_has(default_tier, test)


def test_every_router(default_tier):
    for test in REGISTERED.values():
        assert_has(default_tier, test)
    resolved = "tests/test_config.py::test_every_file_works_on_top_of_a_run"
    shown = [name for name in default_tier if name.startswith(resolved)]
    for file in FILES:
        assert any(file in name for name in shown), file


def test_every_fault(default_tier):
    """Those of docs/results/faults.md."""
    assert set(FAULTS) == {fault.__name__ for fault in (*cases.CASES, *disk_cases.DISK_CASES)}
    for test in FAULTS.values():
        assert_has(default_tier, test)
