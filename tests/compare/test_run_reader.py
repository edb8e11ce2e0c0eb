import json

import jax
import pytest
from fake_runs import (
    EVAL_TOKENS,
    TOKENS_PER_STEP,
    evaluation_record,
    training_record,
    write_run,
)
from jax._src import xla_bridge

from moe_jax.compare import run_reader
from moe_jax.compare.records import Health
from moe_jax.compare.run_reader import read_run
from moe_jax.errors import UserError
from moe_jax.flops import count_parameters, train_flops_per_token
from moe_jax.models.config import ModelConfig

MODEL = ModelConfig(
    vocab_size=64, d_model=8, num_layers=2, num_heads=2, head_dim=4, d_ff=16, num_experts=4
)


def test_a_run_becomes_a_record(tmp_path):
    run = read_run(
        write_run(tmp_path / "ec_s3", {10: 5.0, 20: 4.5}, steps=20, seed=3), "ec", command="train"
    )
    assert (run.arm, run.name, run.role, run.command) == ("ec", "ec_s3", "comparison", "train")
    assert (run.seed, run.data_seed, run.planned_steps, run.last_step) == (3, 3, 20, 20)
    assert run.curve.steps == (10, 20)
    assert run.curve.loss == run.curve.causal_loss == (5.0, 4.5)
    assert run.outcome == "finished"
    assert run.learning_rate == 0.002
    assert (run.tokens_per_step, run.eval_tokens) == (TOKENS_PER_STEP, EVAL_TOKENS)
    assert (run.router, run.pool, run.is_causal) == ("expert_choice", "batch", False)
    assert run.settings["Train.steps"] == run.settings["WarmupCosine.total_steps"] == "20"
    assert run.data == {"task": "'embedded'", "vocabulary": "'embedded'", "digests": {}}
    assert run.environment["devices"] == {"kind": "cpu", "count": 1, "processes": 1}
    assert "started" not in run.environment
    assert run.wall_seconds == 65.0


def test_sizes_are_those_of_the_model(tmp_path):
    run = read_run(write_run(tmp_path / "ec"))
    count = count_parameters(MODEL, 2.0)
    assert (run.parameters, run.active_parameters) == (count.total, count.active)
    assert run.slots_per_token == 2.0
    assert run.flops_per_token == train_flops_per_token(MODEL, 2.0, 32)


@pytest.mark.parametrize(
    ("router", "slots", "active", "pool"),
    [
        ("switch", 1.25, 1.0, "sequence"),
        ("gshard", 2.0, 2.0, "sequence"),
        # Without a capacity: as many as were routed, the mean of two layers.
        ("topk", 1.75, 1.75, "sequence"),
    ],
)
def test_slots_are_those_that_are_computed(tmp_path, router, slots, active, pool):
    run = read_run(write_run(tmp_path / "run", router=router))
    assert run.slots_per_token == slots
    assert run.flops_per_token == train_flops_per_token(MODEL, slots, 32)
    assert run.active_parameters == count_parameters(MODEL, active).active
    assert run.pool == pool


def test_slots_are_no_more_than_the_experts(tmp_path):
    changes = {"Switch.capacity_factor": "100.0"}
    run = read_run(write_run(tmp_path / "run", router="switch", changes=changes))
    assert run.slots_per_token == 4.0


def test_a_dense_model_has_no_slots(tmp_path):
    run = read_run(write_run(tmp_path / "run", router="dense"))
    assert (run.router, run.pool, run.slots_per_token, run.is_causal) == ("dense", "", 0.0, True)
    assert run.parameters == run.active_parameters


def test_both_passes_of_a_step_count(tmp_path):
    changes = {"Experiment.router": "@Thor()"}
    run = read_run(write_run(tmp_path / "run", router="switch", changes=changes))
    assert run.flops_per_token == 2 * train_flops_per_token(MODEL, run.slots_per_token / 2, 32)


def test_the_health_is_that_of_the_last_tenth(tmp_path):
    recent = {
        "router/dropped_share": [0.5, 0.7],
        "router/unrouted_share": [0.0, 0.2],
        "router/max_violation": [1.0, 3.0],
        "router/mean_experts": [1.0, 1.5],
        "skipped_total": 2,
        "memory/peak_gib": 1.5,
    }
    records = [training_record(step, tokens_per_second=512.0) for step in range(1, 19)]
    records += [training_record(19, **recent), training_record(20, **recent)]
    records += [evaluation_record(20, 4.0, 4.5)]
    run = read_run(write_run(tmp_path / "run", records=records, steps=20))
    assert run.health == Health(
        dropped_share=pytest.approx(0.6),
        unrouted_share=pytest.approx(0.1),
        max_violation=3.0,
        mean_experts=1.25,
        causal_mean_experts=1.75,
        skipped_updates=2,
        step_seconds=0.5,
        tokens_per_second=512.0,
        memory_bytes=3 << 29,
    )
    assert (run.curve.loss, run.curve.causal_loss) == ((4.0,), (4.5,))


def outcome(tmp_path, *records):
    return read_run(write_run(tmp_path / "run", records=records)).outcome


def test_a_run_ends_at_its_last_step(tmp_path):
    assert outcome(tmp_path / "a", evaluation_record(40, 4.0, 4.0)) == "finished"
    assert outcome(tmp_path / "b", evaluation_record(30, 4.0, 4.0)) == "unfinished"
    assert outcome(tmp_path / "c", training_record(40)) == "unfinished"
    assert outcome(tmp_path / "d") == "unfinished"


def test_a_run_that_ends_without_a_finite_loss_has_diverged(tmp_path):
    records = [evaluation_record(10, 4.0, 4.1), evaluation_record(40, None, 4.0)]
    run = read_run(write_run(tmp_path / "run", records=records))
    assert run.outcome == "diverged"
    assert run.curve.steps == (10,)
    # In the middle of a run it may become finite again.
    records[1] |= {"step": 20}
    assert read_run(write_run(tmp_path / "b", records=records)).outcome == "unfinished"


@pytest.mark.parametrize(("in_row", "limit", "expected"), [(3, 3, "d"), (2, 3, "u"), (9, 0, "u")])
def test_a_run_that_the_guard_ended_has_diverged(tmp_path, in_row, limit, expected):
    records = [evaluation_record(10, 4.0, 4.0), training_record(13, skipped_in_row=in_row)]
    directory = write_run(tmp_path / "run", records=records, changes={"Guard.limit": str(limit)})
    assert read_run(directory).outcome[0] == expected


def test_steps_that_were_repeated_count_once(tmp_path):
    steps = [10, 20, 30, 20, 30, 40]
    records = [evaluation_record(step, 5.0 - i, 5.0) for i, step in enumerate(steps)]
    run = read_run(write_run(tmp_path / "run", records=records))
    assert run.curve.steps == (10, 20, 30, 40)
    assert run.curve.loss == (5.0, 2.0, 1.0, 0.0)


def test_what_decides_nothing_does_not_change_the_fingerprint(tmp_path):
    changes = [{}, {"Checkpoints.every": "7"}, {"Model.d_ff": "32"}]
    found = [
        read_run(write_run(tmp_path / str(i), changes=c)).fingerprint for i, c in enumerate(changes)
    ]
    assert found[0] == found[1] != found[2]


def test_digests_of_files_are_read(tmp_path):
    data = {"text:a": {"digest": "ab", "files": []}, "odd": 3}
    directory = write_run(tmp_path / "run", data=data)
    assert read_run(directory).data["digests"] == {"text:a": "ab"}
    facts = json.loads((directory / "run.json").read_text())
    (directory / "run.json").write_text(json.dumps({**facts, "vocabulary_digest": "cd"}))
    assert read_run(directory).data["vocabulary_digest"] == "cd"


@pytest.mark.parametrize("name", ["config.gin", "run.json", "metrics.jsonl"])
def test_a_missing_file_is_named(tmp_path, name):
    directory = write_run(tmp_path / "run")
    (directory / name).unlink()
    with pytest.raises(UserError, match=f"has no {name}") as error:
        read_run(directory)
    assert "\n" not in str(error.value)


def test_no_directory():
    with pytest.raises(UserError, match="there is no run directory /nowhere/run"):
        read_run("/nowhere/run")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("config.gin", "\0\udcff", "not UTF-8"),
        ("config.gin", "Model.d_model = ", "config.gin"),
        ("config.gin", "import os", "config.gin.*(import|module)"),
        ("config.gin", "Data.seed = @os.system()", "config.gin"),
        ("config.gin", "Model.d_model = %D\nD = %D", "config.gin"),
        ("run.json", "[]", "run.json is not that of a run"),
        ("run.json", "{", "run.json is not that of a run"),
        ("run.json", "[" * 100_000, "run.json is not that of a run"),
        ("metrics.jsonl", "[" * 100_000, "metrics.jsonl is not that of a run"),
        ("metrics.jsonl", "\udcff", "metrics.jsonl is not that of a run"),
    ],
)
def test_other_contents_are_one_line(tmp_path, name, text, message):
    directory = write_run(tmp_path / "run")
    (directory / name).write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(UserError, match=message) as error:
        read_run(directory)
    assert "\n" not in str(error.value)


RECORD = '{"attempt": "a", "time": 100.0, "step": 40, "seconds": {"step": %s}}'


@pytest.mark.parametrize(
    "contents",
    [
        b"\xff\n",
        b"[" * 100_000,
        (RECORD % "1e400").encode(),
        (RECORD % "-5").encode(),
        (RECORD % "5").replace("40", "1e400").encode(),
    ],
)
def test_without_a_usable_time_the_wall_time_is_unknown(tmp_path, contents):
    directory = write_run(tmp_path / "run")
    (directory / "time.jsonl").write_bytes(contents)
    run = read_run(directory)
    assert (run.outcome, run.wall_seconds) == ("finished", None)


def test_whatever_reading_raises_is_one_line(tmp_path, monkeypatch):
    def fail(*_):
        raise OverflowError("too\nlarge")

    monkeypatch.setattr(run_reader, "summarise", fail)
    with pytest.raises(UserError, match="run cannot be read as a run: OverflowError: too large"):
        read_run(write_run(tmp_path / "run"))


def test_values_of_wrong_types_count_as_missing(tmp_path):
    odd = {"loss": "x", "causal_loss": [1], "tokens": {}, "causal_mean_experts": True}
    records = [
        {"step": "1", "kind": "train"},
        {"step": 1, "kind": ["train"]},
        training_record(5, **{"router/mean_experts": [[1], [1, 2]], "tokens_per_second": "fast"}),
        training_record(6, **{"router/mean_experts": "abc", "skipped_total": 10**400}),
        evaluation_record(40, 1.0, 1.0) | odd,
    ]
    run = read_run(write_run(tmp_path / "run", records=records))
    assert (run.outcome, run.eval_tokens) == ("diverged", 0)
    assert run.health.mean_experts is None
    assert run.health.skipped_updates is None


def test_what_a_run_names_is_not_read(tmp_path, monkeypatch):
    """Reading a run neither counts tokens of its data nor looks for its files."""
    changes = {
        "Data.task": "'text:/nowhere/*.txt'",
        "Data.cache_dir": "'gs://somewhere/cache'",
        "Experiment.router": "@Hash()",
        "Hash.method": "'balanced'",
        "Hash.frequencies": "@TokenFrequencies()",
    }
    run = read_run(write_run(tmp_path / "run", router="switch", changes=changes))
    assert run.router == "hash"
    assert run.data["task"] == "'text:/nowhere/*.txt'"
    assert run.settings["Hash.frequencies"] == "@TokenFrequencies()"


def test_no_device_is_used(tmp_path, monkeypatch):
    def fail():
        raise AssertionError("a device is used")

    monkeypatch.setattr(xla_bridge, "backends", fail)
    assert read_run(write_run(tmp_path / "run")).outcome == "finished"
    with pytest.raises(AssertionError, match="a device is used"):
        jax.devices("cpu")


def test_the_record_is_one_line_of_results(tmp_path):
    from moe_jax.compare.results_file import from_json, to_json

    run = read_run(write_run(tmp_path / "run"))
    assert from_json(json.loads(json.dumps(to_json(run))), "x") == run
