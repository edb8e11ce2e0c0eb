"""The metrics equal those of the t5 package for the same examples (golden_t5.json)."""

import json
from pathlib import Path

import pytest

from moe_jax.data.tasks import metrics

GOLDEN = json.loads((Path(__file__).parent / "golden_t5.json").read_text(encoding="utf-8"))["cases"]
METRICS = {name: getattr(metrics, name, None) for name in GOLDEN}
METRICS["mean_multiclass_f1_3"] = metrics.mean_multiclass_f1(3)


def hashable_groups(targets):
    if not isinstance(targets[0], dict):
        return targets
    return [
        {**t, "group": tuple(t["group"]) if isinstance(t["group"], list) else t["group"]}
        for t in targets
    ]


@pytest.mark.parametrize("name", GOLDEN)
def test_equal_to_t5(name):
    assert len(GOLDEN[name]) >= 8
    for case in GOLDEN[name]:
        figures = METRICS[name](hashable_groups(case["targets"]), case["predictions"])
        # T5 gives NaN where a correlation is not defined.
        expected = {key: 0.0 if v is None else v for key, v in case["figures"].items()}
        assert figures == pytest.approx(expected, rel=1e-12, abs=1e-10)
        assert all(type(value) is float for value in figures.values())


def test_the_cases_tell_metrics_apart():
    assert json.dumps(GOLDEN).count("-1") > 20
    for cases in GOLDEN.values():
        assert len({json.dumps(case["figures"]) for case in cases}) >= 3
