"""JSON that every reader takes, whatever the numbers are."""

import json
import math
import re
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from moe_jax import cli
from moe_jax.commands import status
from moe_jax.strict_json import dumps, not_finite

PACKAGE = Path(__file__).parent.parent / "moe_jax"
# Messages between processes, and files of names, paths and whole numbers.
OTHER = {
    "data/pipeline/curriculum.py",
    "data/pipeline/task_cache.py",
    "data/sources/holdout_split.py",
    "data/sources/inspection_cache.py",
    "data/sources/json_texts.py",
    "data/sources/user_files.py",
    "evaluation/complexity.py",
    "pods/compiler_process.py",
    "pods/compiler.py",
    "runs/loading.py",
    "sharding/processes.py",
    "sharding/rendezvous.py",
    "training/run_directory/data_manifest.py",
    "training/run_directory/lock_file.py",
}
VALUE = {
    "loss": math.nan,
    "step": np.int64(3),
    "rows": [{"seconds": np.float32(np.inf)}, (1.5, -math.inf)],
    "load": np.array([[0.5, np.nan]]),
    "half": jnp.bfloat16(0.5),
    "ok": True,
    "name": "NaN",
    "none": None,
}


def refuse(token):
    raise AssertionError(f"{token} is no JSON")


def test_what_is_not_finite_is_null():
    assert json.loads(dumps(VALUE), parse_constant=refuse) == {
        "loss": None,
        "step": 3,
        "rows": [{"seconds": None}, [1.5, None]],
        "load": [[0.5, None]],
        "half": 0.5,
        "ok": True,
        "name": "NaN",
        "none": None,
    }


def test_what_is_not_finite_is_named():
    assert not_finite(VALUE) == ["loss", "rows/0/seconds", "rows/1/1", "load/0/1"]
    assert not_finite({"loss": 1.0, "evaluation": None}) == []


@pytest.mark.parametrize("asked", [True, False])
def test_a_verb_with_figures_that_are_not_finite_fails(monkeypatch, capsys, asked):
    monkeypatch.setattr(status, "run", lambda args: VALUE)
    assert cli.main(["status", "runs/x", *["--json"] * asked]) == 1
    out, err = capsys.readouterr()
    assert err == "moe-jax: not finite: loss, rows/0/seconds, rows/1/1, load/0/1\n"
    if asked:
        assert json.loads(out, parse_constant=refuse)["step"] == 3


def test_there_is_no_other_way_to_json():
    found = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if re.search(r"\bjson\.dumps?\(", path.read_text())
    }
    assert found - OTHER == {"strict_json.py"}
