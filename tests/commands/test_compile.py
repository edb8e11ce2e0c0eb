"""`moe-jax compile` without its compiler: what it refuses, prints, returns and writes."""

import importlib.util
import json
import os
import signal

import pytest

from moe_jax import cli
from moe_jax.commands.compile import report as command
from moe_jax.cost_model.memory_usage import MemoryUsage
from moe_jax.cost_model.step_time import StepTime
from moe_jax.cost_model.topologies import parse_topology
from moe_jax.errors import UserError
from moe_jax.pods import fit as fitting
from moe_jax.pods import sweep as sweeping
from moe_jax.pods.report import CompileReport

FILES = ["--gin_file=runs/pretrain.gin", "--gin_file=models/8b_64e.gin"]
# All of the state is sharded already: no other mesh is tried.
SHARDED = ["--gin_file=mesh/fsdp.gin"]
GIB = 1 << 30


def run(capsys, *argv):
    """Runs the command in this process; returns its exit code, output and errors."""
    handler = signal.getsignal(signal.SIGTERM)
    code = cli.main(["compile", *argv])
    assert signal.getsignal(signal.SIGTERM) == handler
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def made(gib, seconds=2.0):
    time = StepTime(seconds, seconds, 0.0, {}, 0.0, {})
    memory = MemoryUsage(
        gib * GIB,
        {"parameters": 3 * GIB, "optimiser": 1 * GIB, "batch": 0},
        (gib - 4) * GIB,
        {"attention": 9 * GIB, "experts": 2 * GIB},
    )
    time = time if gib < 15.75 else None
    return CompileReport(
        parse_topology("v5e:4x4"), {"fsdp": 16}, memory, (), 1e12, 1e12, 1024.0, time, time, (), (),
        (), {}, 9.0, False,
    )  # fmt: skip


@pytest.fixture
def compiler(monkeypatch, tmp_path):
    """Replaces the compiler by a function (job) -> CompileReport; libtpu is found.

    The state takes 4 GiB a device where it is sharded over all 16.
    """
    library = tmp_path / "libtpu.so"
    library.write_text("")
    monkeypatch.setenv("TPU_LIBRARY_PATH", str(library))

    def minimum_bytes(job):
        sizes = sweeping.load_experiment(job).mesh.sizes(job.topology.device_count)
        return {"parameters": 64 * GIB // (sizes["fsdp"] * sizes["expert"])}

    for module in (sweeping, fitting, command):
        monkeypatch.setattr(module, "minimum_bytes", minimum_bytes)
    monkeypatch.setattr(command, "minimum_chips", lambda experiment, topology: 5)

    def use(report):
        monkeypatch.setattr(sweeping, "compile_and_report", lambda job, on_progress: report(job))
        monkeypatch.setattr(command, "compile_and_report", lambda job, on_progress: report(job))

    return use


def test_an_unknown_topology_lists_the_known(capsys):
    code, _, err = run(capsys, "--topology=v9:2x2", *FILES)
    assert code == 1
    assert err.count("\n") == 1
    assert all(chip in err for chip in ("v4", "v5e", "v5p", "v6e", "tpu7x"))
    code, _, err = run(capsys, "--topology=v4:3x3x3", *FILES)
    assert (code, err.count("\n")) == (1, 1)
    assert "2x2x2" in err
    assert "8x8x8" in err


def test_without_libtpu_one_line_says_what_to_install(capsys, monkeypatch):
    monkeypatch.delenv("TPU_LIBRARY_PATH", raising=False)
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "libtpu" else found(name, *a)
    )
    code, _, err = run(capsys, "--topology=v4:8x8x8", *FILES)
    assert (code, err.count("\n")) == (1, 1)
    assert "pip install 'moe_jax[tpu]'" in err


@pytest.mark.parametrize("tokens", ["0", "-1", "nan", "inf"])
def test_a_budget_of_no_tokens_is_refused(capsys, tokens):
    code, _, err = run(capsys, "--topology=v4:8x8x8", f"--tokens={tokens}", *FILES)
    assert (code, err.count("\n")) == (1, 1)
    assert "--tokens must be a number above 0" in err


@pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None and "TPU_LIBRARY_PATH" not in os.environ,
    reason="libtpu is not installed",
)
@pytest.mark.parametrize("wrong", ["--gin.Model.d_modle=3", "--gin_file=models/none.gin"])
@pytest.mark.tpu_compile
def test_a_mistake_in_a_configuration_is_one_line(capsys, wrong):
    code, _, err = run(capsys, "--topology=v4:2x2x2", *FILES, wrong)
    assert (code, err.count("\n")) == (1, 1)
    assert "d_model" in err or "none.gin" in err


def test_what_fits_is_printed_and_written(capsys, compiler, tmp_path, monkeypatch):
    compiler(lambda job: made(12))
    monkeypatch.setattr("sys.argv", ["moe-jax", "compile", "--topology=v5e:4x4"])
    code, out, err = run(
        capsys, "--topology=v5e:4x4", *FILES, "--json", f"--output_dir={tmp_path}/out"
    )
    assert (code, err) == (0, "")
    assert "Fits: 12.00 of 15.75 GiB a device" in out
    result = json.loads(out.splitlines()[-1])
    assert result == json.loads((tmp_path / "out" / "compile.json").read_text())
    assert result["fits"] is True
    assert "nearest_fit" not in result
    page = (tmp_path / "out" / "compile.md").read_text()
    assert "\nmoe-jax compile --topology=v5e:4x4\n" in page


def test_what_does_not_fit_names_the_largest_and_the_nearest_that_fits(capsys, compiler):
    def report(job):
        return made(12 if "Train.accumulation=4" in job.source.bindings else 20)

    compiler(report)
    code, out, _ = run(capsys, "--topology=v5e:4x4", *FILES, *SHARDED, "--json")
    assert code == 0
    lines = out.splitlines()
    assert "DOES NOT FIT: 20.00 of 15.75 GiB a device" in lines
    assert (
        "The largest: attention, while the step runs 9.00 GiB, packing, while the step runs "
        "5.00 GiB, parameters 3.00 GiB"
    ) in lines
    assert "--gin.Train.accumulation=4 (12.00 GiB)" in out
    # The report comes first, without times of a step that does not fit.
    first = out[: out.index("remat full, 2 micro-batches")]
    assert "DOES NOT FIT" in first
    assert not any(word in first for word in ("Step:", "MFU", "tokens/s", " ms", "chip-days"))
    assert "  remat full, 2 micro-batches | no | 20.00 | - | -" in lines
    result = json.loads(lines[-1])
    assert (result["fits"], result["nearest_fit"]["answer"]["fits"]) == (False, True)
    assert result["nearest_fit"]["bindings"] == ["Model.remat='full'", "Train.accumulation=4"]
    assert [row["bytes"] for row in result["largest"]] == [9 * GIB, 5 * GIB, 3 * GIB]
    of_time = ("step_seconds", "step_seconds_high", "mfu", "mfu_low", "seconds", "chip_days")
    assert all(result[name] is None for name in (*of_time, "tokens_per_second_per_chip"))
    assert result["variants"][-1] == result["nearest_fit"]
    assert [each["answer"]["fits"] for each in result["variants"]] == [False, True]


def test_a_state_that_is_too_large_is_printed_before_the_compilation(capsys, compiler):
    printed = []

    def report(job):
        printed.append(capsys.readouterr().out)
        return made(20)

    compiler(report)
    run(capsys, "--topology=v5e:4x4", *FILES, "--no_variants")
    assert "DOES NOT FIT: parameters 64.00 GiB a device, of 15.75 GiB" in printed[0]


def test_a_model_for_more_chips_says_how_many(capsys, compiler, monkeypatch):
    jobs = []
    compiler(lambda job: jobs.append(job) or made(20))
    monkeypatch.setattr(command, "minimum_chips", lambda experiment, topology: 34)
    code, out, _ = run(capsys, "--topology=v5e:4x4", *FILES, "--json")
    assert code == 0
    assert "No mesh of 16 chips fits: parameters and optimiser state fill 34 chips" in out
    assert "Use more chips (v5e:8x8 or larger)" in out
    assert len(jobs) == 1
    result = json.loads(out.splitlines()[-1])
    assert (result["nearest_fit"], result["variants"]) == (None, [])


def test_without_variants_there_is_only_the_report(capsys, compiler):
    jobs = []
    compiler(lambda job: jobs.append(job) or made(20))
    code, out, _ = run(capsys, "--topology=v5e:4x4", *FILES, "--no_variants", "--json")
    assert (code, len(jobs)) == (0, 1)
    result = json.loads(out.splitlines()[-1])
    assert result["fits"] is False
    assert "nearest_fit" not in result
    code, _, err = run(capsys, "--topology=v5e:4x4", *FILES, "--no_variants", "--sweep")
    assert (code, err.count("\n")) == (1, 1)
    assert "--no_variants" in err


def interrupted(after, gib):
    """Returns a compiler that answers some times, and is then interrupted."""
    left = [after]

    def report(job):
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        return made(gib)

    return report


def test_ctrl_c_keeps_the_report(capsys, compiler, tmp_path):
    compiler(interrupted(2, 20))
    flags = ["--json", f"--output_dir={tmp_path}"]
    code, out, _ = run(capsys, "--topology=v5e:4x4", *FILES, *SHARDED, *flags)
    assert code == 130
    *lines, last = out.splitlines()
    assert (
        lines[-1] == "Stopped while searching for a variant that fits: the report above is complete"
    )
    result = json.loads(last)
    assert (result["fits"], result["nearest_fit"], len(result["variants"])) == (False, None, 1)
    written = json.loads((tmp_path / "compile.json").read_text())
    assert written["largest"] == result["largest"]
    assert "DOES NOT FIT" in (tmp_path / "compile.md").read_text()
    # Before there is a report, there is nothing to keep.
    compiler(interrupted(0, 20))
    code, out, err = run(capsys, "--topology=v5e:4x4", *FILES, "--json")
    assert (code, err) == (130, "moe-jax: stopped\n")


def test_ctrl_c_in_a_sweep_leaves_the_best_so_far(capsys, compiler):
    compiler(interrupted(3, 12))
    code, out, _ = run(capsys, "--topology=v5e:4x4", *FILES, "--sweep", "--json")
    assert code == 130
    assert len(json.loads(out.splitlines()[-1])["trials"]) == 3


def test_the_page_has_the_trials(capsys, compiler, tmp_path):
    compiler(lambda job: made(12 if "Train.accumulation=2" in job.source.bindings else 20))
    run(capsys, "--topology=v5e:4x4", *FILES, *SHARDED, f"--output_dir={tmp_path}")
    text = (tmp_path / "compile.md").read_text()
    assert "## Time" not in text
    assert "| packing * | 5.00 |" in text
    assert "| remat full, 2 micro-batches | yes | 12.00 | 2,000 .. 2,000 |" in text
    result = json.loads((tmp_path / "compile.json").read_text())
    assert result["nearest_fit"]["bindings"][-1] == "Train.accumulation=2"


def test_if_nothing_fits_it_says_what_else_to_do(capsys, compiler):
    compiler(lambda job: made(20))
    code, out, _ = run(capsys, "--topology=v5e:4x4", *FILES, *SHARDED, "--json")
    assert code == 0
    assert "use more chips" in out
    assert json.loads(out.splitlines()[-1])["nearest_fit"] is None


def test_a_sweep_ranks_what_it_tried(capsys, compiler, tmp_path):
    def report(job):
        if "Mesh.expert=8" in job.source.bindings:
            raise UserError("two\nlines | of it")
        return made(12, seconds=1.0 if "Mesh.expert=16" in job.source.bindings else 2.0)

    compiler(report)
    flags = ["--sweep", "--json", f"--output_dir={tmp_path}"]
    code, out, _ = run(capsys, "--topology=v5e:4x4", *FILES, *flags)
    assert code == 0
    result = json.loads(out.splitlines()[-1])
    assert result["step_seconds"] == 1.0
    assert "--gin.Mesh.expert=16" in out
    assert "Mesh.expert=16" in result["trials"][0]["bindings"]
    refused = [trial for trial in result["trials"] if trial["answer"] is None]
    assert {trial["error"] for trial in refused} == {"two\nlines | of it"}
    rows = [r for r in (tmp_path / "compile.md").read_text().splitlines() if "| refused |" in r]
    assert len(rows) == len(refused)
    assert all(row.endswith(r"two lines \| of it |") for row in rows)


def test_a_sweep_in_which_nothing_compiles_says_why(capsys, compiler):
    def report(job):
        raise UserError("the reason")

    compiler(report)
    code, _, err = run(capsys, "--topology=v5e:4x4", *FILES, "--sweep")
    assert (code, err.count("\n")) == (1, 1)
    assert "no variant can be compiled: the reason" in err


def test_full_is_passed_on(capsys, compiler):
    jobs = []
    compiler(lambda job: jobs.append(job) or made(12))
    for flags in ([], ["--full"]):
        assert run(capsys, "--topology=v5e:4x4", *FILES, *flags)[0] == 0
    assert [job.full for job in jobs] == [False, True]
    assert list(jobs[0].source.files) == ["runs/pretrain.gin", "models/8b_64e.gin"]
