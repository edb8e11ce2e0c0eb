import math

import numpy as np
import pytest
from fake_runs import evaluation_record, training_record

from moe_jax.compare.records import Curve
from moe_jax.compare.run_metrics import summarise


def test_nothing_is_known_of_no_records():
    metrics = summarise([])
    assert metrics.curve == Curve((), (), ())
    assert (metrics.eval_tokens, metrics.mean_experts, metrics.is_finite) == (0, None, True)
    assert set(vars(metrics.health).values()) == {None}
    assert metrics.outcome(10, 3) == "unfinished"


def test_experts_are_averaged_over_the_whole_run():
    experts = np.random.default_rng(0).uniform(0, 4, (30, 2))
    records = [
        training_record(step + 1, **{"router/mean_experts": row.tolist()})
        for step, row in enumerate(experts)
    ]
    metrics = summarise(records)
    assert metrics.mean_experts == pytest.approx(experts.mean())
    assert metrics.health.mean_experts == pytest.approx(experts[-3:].mean())


def test_a_step_without_speed_has_no_time():
    records = [training_record(1, tokens_per_second=0.0)]
    assert summarise(records).health.step_seconds is None
    records += [training_record(s, tokens_per_second=float(s)) for s in (2, 4, 8)]
    health = summarise(records).health
    assert (health.step_seconds, health.tokens_per_second) == (256 / 4, 4.0)


@pytest.mark.parametrize("loss", [None, math.nan, math.inf, "nan"])
def test_only_the_last_evaluation_decides_whether_it_diverged(loss):
    records = [evaluation_record(5, loss, 1.0), evaluation_record(10, 2.0, 2.0)]
    assert summarise(records).outcome(10, 0) == "finished"
    assert summarise(records).curve.steps == (10,)
    assert summarise(records[:1]).outcome(10, 0) == "unfinished"
    assert summarise(records[:1]).outcome(5, 0) == "diverged"
