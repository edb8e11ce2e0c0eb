"""Means, intervals and differences of a fine-tuning study against the statistics of scipy."""

import statistics

import fake_finetuning
import pytest
from scipy import stats

from moe_jax import strict_json
from moe_jax.compare.results_file import from_json, to_json
from moe_jax.errors import UserError
from moe_jax.finetuning.results import json_summary, summarise


def t_interval(values):
    return stats.t.interval(
        0.95, len(values) - 1, loc=statistics.mean(values), scale=stats.sem(values)
    )


def test_records_are_read_back_as_they_were_written():
    for number, record in enumerate(fake_finetuning.records()):
        assert from_json(to_json(record), f"line {number}") == record


def test_means_and_intervals_are_those_of_scipy():
    results = summarise(fake_finetuning.records())
    for arm, by_task in fake_finetuning.SCORES.items():
        for task, by_seed in by_task.items():
            values = list(by_seed.values())
            found = results.tasks[arm][task]
            assert found.score.value == pytest.approx(statistics.mean(values))
            assert (found.score.low, found.score.high) == pytest.approx(t_interval(values))
            assert found.causal.value == pytest.approx(statistics.mean(values) - 1)
            assert found.last.value == pytest.approx(statistics.mean(values) - 2)
    assert results.missing == ()


def test_averages_and_differences_are_paired_by_seed():
    results = summarise(fake_finetuning.records())
    ec, dense = [50.0, 54.0, 52.0], [50.0, 51.0, 50.5]
    assert results.averages["ec"].value == pytest.approx(52.0)
    assert (results.averages["dense"].low, results.averages["dense"].high) == pytest.approx(
        t_interval(dense)
    )
    found = results.differences["dense"]
    values = [b - a for a, b in zip(ec, dense, strict=True)]
    assert found.value == pytest.approx(-1.5)
    assert (found.low, found.high) == pytest.approx(t_interval(values))
    assert found.p == pytest.approx(stats.ttest_rel(dense, ec).pvalue)
    assert found.p_holm == pytest.approx(found.p)


def test_a_seed_without_all_tasks_is_in_no_average():
    records = [r for r in fake_finetuning.records() if r != fake_finetuning.records()[1]]
    results = summarise(records)
    assert results.missing == ("ec on glue_sst2_v002, seed 1: not trained",)
    assert results.averages["ec"].value == pytest.approx((54.0 + 52.0) / 2)
    assert results.averages["ec"].seeds == 2
    assert results.tasks["ec"]["glue_sst2_v002"].score.value == pytest.approx(83.0)
    assert results.differences["dense"].seeds == 2


def test_unfinished_and_diverged_runs_do_not_count():
    records = [
        *fake_finetuning.records(),
        fake_finetuning.run("ec", "glue_sst2_v002", 1, 99.0, outcome="diverged"),
    ]
    results = summarise(records)
    assert results.missing == ("ec on glue_sst2_v002, seed 1: diverged",)
    assert set(results.tasks["ec"]["glue_sst2_v002"].runs) == {2, 3}


def test_the_summary_is_strict_json():
    summary = json_summary(summarise(fake_finetuning.records()))
    assert strict_json.dumps(summary)
    found = summary["tasks"]["glue_sst2_v002"]
    assert set(found) >= {"metric", "mean", "std", "low", "high", "seeds"}
    assert found["std"] == pytest.approx(statistics.stdev([80, 82, 84]))
    assert found["seeds"] == {"1": 80.0, "2": 82.0, "3": 84.0}
    assert summary["baselines"]["glue_sst2_v002"]["majority"] == {"accuracy": 50.9}


def test_records_of_something_else_are_refused():
    with pytest.raises(UserError, match="not the results of a fine-tuning study"):
        summarise(fake_finetuning.records()[1:])
