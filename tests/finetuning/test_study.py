"""A fine-tuning study from its gin file to its records, with child processes that do not train."""

import pytest
from fake_finetuning import FinetuningChildren, load, pretrained

from moe_jax.compare import scheduler
from moe_jax.compare.planned_runs import StudyOptions, missing_commands
from moe_jax.compare.task_records import FinetuningPlan, TaskBaseline
from moe_jax.errors import UserError
from moe_jax.finetuning import study as finetuning_study
from moe_jax.finetuning.study import plan_finetuning, run_finetuning

BINDINGS = ("SEEDS=(1, 2)", "STEPS=30")


@pytest.fixture(autouse=True)
def fast(monkeypatch):
    monkeypatch.setattr(scheduler, "POLL_SECONDS", 0.001)
    monkeypatch.setattr(
        finetuning_study,
        "measure_baselines",
        lambda source, task: [TaskBaseline(task, "majority", {"accuracy": 50.0}, 10, 20)],
    )


@pytest.fixture
def model(tmp_path):
    return pretrained(tmp_path / "ec")


def plan(tmp_path, model, *bindings):
    options = StudyOptions(str(tmp_path / "study"), "moe-jax finetune ...")
    return plan_finetuning(load(*BINDINGS, *bindings), [model], options), options


def run(study, options, **behaviour):
    children = FinetuningChildren(study, **behaviour)
    failed = run_finetuning(study, options, lambda progress: None, lambda line: None, children)
    return failed, children.started


def test_all_is_recorded_and_the_second_time_nothing_is_done(tmp_path, model):
    study, options = plan(tmp_path, model)
    failed, started = run(study, options)
    assert (failed, started) == ([], ["ec/glue_sst2/seed_1", "ec/glue_sst2/seed_2"])
    runs = study.directory.task_runs()
    found = runs["ec/glue_sst2/seed_1"]
    assert (found.best_step, found.scores, found.last_scores) == (
        10,
        {"accuracy": 70.0, "score": 70.0},
        {"accuracy": 69.0, "score": 69.0},
    )
    assert (found.task, found.seed, found.examples) == ("glue_sst2_v002", 1, 100)
    records = study.directory.records()
    assert [type(r) for r in records if not hasattr(r, "arm")] == [FinetuningPlan, TaskBaseline]
    assert run(study, options) == ([], [])
    assert study.directory.records() == records
    assert missing_commands(study) == []


def test_a_run_that_failed_is_named_and_tried_again(tmp_path, model):
    study, options = plan(tmp_path, model)
    failed, _ = run(study, options, score=lambda job: None if job.seed == 2 else 70.0)
    assert len(failed) == 1
    assert failed[0].startswith("ec/glue_sst2/seed_2: moe-jax: no such data")
    assert len(missing_commands(study)) == 1
    failed, started = run(study, options)
    assert (failed, started) == ([], ["ec/glue_sst2/seed_2"])


def test_a_run_without_its_predictions_is_not_finished(tmp_path, model):
    study, options = plan(tmp_path, model)
    failed, _ = run(study, options, predicts=False)
    assert len(failed) == 2
    assert "it ended before its last step" in failed[0]


def test_a_changed_configuration_is_refused(tmp_path, model):
    run(*plan(tmp_path, model))
    with pytest.raises(UserError, match=r"the configuration of .* has changed"):
        run(*plan(tmp_path, model, "RATE=3e-3"))
