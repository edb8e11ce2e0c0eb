import dataclasses
import errno
import json
import math
import subprocess
import sys

import numpy as np
import pytest

from moe_jax.compare import results_file
from moe_jax.compare.records import Curve, Health, LeakTest, RunRecord, StepTimes, StudyPlan
from moe_jax.compare.results_file import (
    append_record,
    from_json,
    read_records,
    to_json,
    write_records,
)
from moe_jax.errors import UserError

RUN = RunRecord(
    arm="ec",
    name="ec/seed_0",
    role="comparison",
    seed=3,
    data_seed=4,
    learning_rate=0.1 + 0.2,
    fingerprint="0123456789abcdef",
    planned_steps=20,
    outcome="finished",
    curve=Curve((10, 20), (1 / 3, 2.0), (math.pi, 5e-324)),
    tokens_per_step=256,
    eval_tokens=512,
    slots_per_token=2.0,
    flops_per_token=1.7976931348623157e308,
    parameters=2**62,
    active_parameters=7,
    router="expert_choice",
    pool="batch",
    is_causal=False,
    health=Health(dropped_share=0.1, max_violation=math.inf, skipped_updates=2),
    settings={"Train.steps": "20", "a\u2028b": "'\U0001f600\udcff'"},
    data={"task": ("x", ("y",)), "rates": {0.1: -math.inf, "$map": 1}, "none": None},
    environment={"packages": {"jax": "1"}, "nested": [{"$tuple": 3}, (1,)]},
    command="moe-jax train",
)
TIMES = StepTimes("ec", "0123", (0.1, 1 / 7), "1 x cpu")
LEAK = LeakTest("ec", "expert_choice", 100, 4.1, math.log(64), -math.inf, True)
PLAN = StudyPlan(
    "Is it faster?",
    "switch",
    {"switch": "top-1", "ec": "experts choose"},
    True,
    (0, 1),
    "steps",
    targets=(3.25,),
    rate_seed=None,
)
RECORDS = [RUN, TIMES, LEAK, PLAN]


def with_types(value):
    """Returns a value with its types, since 2 == 2.0 and a list is compared by its items."""
    if dataclasses.is_dataclass(value):
        return type(value), {
            f.name: with_types(getattr(value, f.name)) for f in dataclasses.fields(value)
        }
    if isinstance(value, dict):
        return {key: with_types(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value), [with_types(item) for item in value]
    return type(value), repr(value)


def test_records_are_the_same_after_reading(tmp_path):
    path = tmp_path / "results.jsonl"
    write_records(path, RECORDS)
    assert with_types(read_records(path)) == with_types(RECORDS)
    lines = path.read_text().splitlines()
    assert [json.loads(line)["kind"] for line in lines] == [
        "run",
        "step_times",
        "leak_test",
        "study",
    ]
    for line in lines:
        assert json.loads(line)["version"] == 1
        assert not {"NaN", "Infinity"} & set(line.replace('"', " ").split())


def test_nan_and_arrays_are_numbers(tmp_path):
    curve = Curve((np.int64(10),), (np.float32(0.5),), (math.nan,))
    times = dataclasses.replace(TIMES, seconds=tuple(np.asarray([0.25, 0.5], np.float32)))
    write_records(tmp_path / "r", [dataclasses.replace(RUN, curve=curve), times])
    run, read_times = read_records(tmp_path / "r")
    assert (run.curve.steps, run.curve.loss) == ((10,), (0.5,))
    assert math.isnan(run.curve.causal_loss[0])
    assert with_types(read_times.seconds) == with_types((0.25, 0.5))


def test_a_last_line_that_was_cut_off_is_left_out_and_replaced(tmp_path):
    path = tmp_path / "results.jsonl"
    append_record(path, TIMES)
    whole = path.read_text()
    append_record(path, RUN)
    text = path.read_text()
    for cut in (len(whole) + 1, len(whole) + 100, len(text) - 2):
        path.write_text(text[:cut])
        assert read_records(path) == [TIMES]
        append_record(path, LEAK)
        assert read_records(path) == [TIMES, LEAK]
    # Only the end of the line is missing.
    path.write_text(text[:-1])
    append_record(path, LEAK)
    assert read_records(path) == [TIMES, RUN, LEAK]


def changed(record, **changes):
    return json.dumps(to_json(record) | changes)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("[1]", "line 2 is not a JSON object"),
        ("{", "line 2 is not JSON"),
        ("[" * 100_000, "line 2 is not JSON: it is nested too deeply"),
        (changed(RUN, kind="runn"), "line 2: the kind of a record is one of run, .*'run'"),
        (changed(RUN, kind=["run"]), "line 2: the kind of a record"),
        (changed(RUN, version=2), "line 2 is of version 2 of the format; this program reads"),
        (changed(RUN, seed=True), "line 2: seed must be a whole number, not True"),
        (changed(RUN, seed="3"), "line 2: seed must be a whole number, not '3'"),
        (changed(RUN, arm=None), "line 2: arm must be a text, not None"),
        (changed(RUN, slots_per_token="x"), "line 2: slots_per_token must be a number, not 'x'"),
        (changed(RUN, slots_per_token=10**400), "line 2: slots_per_token is a whole number that"),
        (changed(RUN, outcome="done"), "line 2: outcome must be one of finished, .*, not 'done'"),
        (changed(RUN, outcome=[]), "line 2: outcome must be one of"),
        (changed(RUN, sed=3), "line 2 has an unknown field 'sed'. Did you mean 'seed'"),
        (changed(RUN, settings={"a": 1}), r"line 2: settings\['a'\] must be a text, not 1"),
        (changed(RUN, settings=[]), "line 2: settings must be an object"),
        (changed(RUN, curve={"steps": [1], "loss": [1]}), "line 2: curve has no 'causal_loss'"),
        (
            changed(RUN, curve={"steps": [1], "loss": [1], "causal_loss": [1, 2]}),
            "line 2: the curve needs as many losses as steps",
        ),
        (
            changed(RUN, curve={"steps": [2, 1], "loss": [1, 1], "causal_loss": [1, 2]}),
            "line 2: the steps of the curve must increase",
        ),
        (
            changed(RUN, curve={"steps": [-1, 1], "loss": [1, 1], "causal_loss": [1, 2]}),
            "line 2: the steps of the curve must not be negative",
        ),
        (changed(RUN, tokens_per_step=0), "line 2: tokens_per_step must be at least 1"),
        (changed(RUN, parameters=2**63), "line 2: parameters is a whole number that is too large"),
        (changed(RUN, parameters=-1), "line 2: parameters must not be negative"),
        (changed(RUN, wall_seconds="inf"), "line 2: wall_seconds must be finite and above 0"),
        (changed(TIMES, seconds=[0.5, 0.0]), "line 2: seconds must be finite and above 0, not 0.0"),
        (changed(TIMES, seconds=["nan"]), "line 2: seconds must be finite and above 0, not nan"),
        (changed(RUN, data={"x": {"$map": [[[1], 2]]}}), "line 2: data.* has a key that is a list"),
        (changed(RUN, data={"x": {"$map": [1]}}), "line 2: data.* must be a list of pairs"),
        (changed(TIMES, seconds=3), "line 2: seconds must be a list"),
        (
            changed(TIMES, seconds=[0.5, "fast"]),
            r"line 2: seconds\[1\] must be a number, not 'fast'",
        ),
    ],
)
def test_a_strangers_file_is_refused_in_one_line(tmp_path, line, message):
    path = tmp_path / "results.jsonl"
    write_records(path, [TIMES])
    path.write_text(f"{path.read_text()}{line}\n\n")
    with pytest.raises(UserError, match=message) as error:
        read_records(path)
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)
    assert len(str(error.value)) < 400 + len(str(path))


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(UserError, match="cannot read"):
        read_records(tmp_path / "none")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="not UTF-8"):
        read_records(tmp_path / "binary")


def test_fields_with_a_default_may_be_missing():
    values = to_json(PLAN)
    del values["targets"], values["source"]
    assert from_json(values, "x") == dataclasses.replace(PLAN, targets=())


def test_what_is_complete_is_not_written_again(tmp_path, monkeypatch):
    path = tmp_path / "results.jsonl"
    size = append_record(path, TIMES)
    assert size == path.stat().st_size

    def fail(*_):
        raise AssertionError

    monkeypatch.setattr(results_file, "_complete", fail)
    append_record(path, LEAK)
    assert read_records(path) == [TIMES, LEAK]


def test_the_file_itself_is_locked(tmp_path, monkeypatch):
    path = tmp_path / "results.jsonl"
    append_record(path, TIMES)
    script = (
        "import fcntl, sys; file = open(sys.argv[1], 'r+'); fcntl.lockf(file, fcntl.LOCK_EX); "
        "print('locked', flush=True); sys.stdin.read()"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", script, str(path)], **pipes) as other:
        other.stdout.readline()
        monkeypatch.setattr(results_file, "_LOCK_SECONDS", 0.0)
        with pytest.raises(OSError, match="another process keeps it locked"):
            append_record(path, LEAK)
        monkeypatch.setattr(results_file, "_LOCK_SECONDS", 60.0)
        other.stdin.close()
        append_record(path, LEAK)
    assert read_records(path) == [TIMES, LEAK]


def test_a_full_disk_leaves_the_file_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "results.jsonl"
    append_record(path, TIMES)
    whole = path.read_bytes()

    def fill(file, contents):
        file.write(contents[:50])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(results_file, "_write", fill)
    with pytest.raises(OSError, match="No space"):
        append_record(path, LEAK)
    assert path.read_bytes() == whole
