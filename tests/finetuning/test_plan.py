"""The settings of a fine-tuning study."""

import pytest

from moe_jax.config_source import ConfigSource
from moe_jax.errors import UserError
from moe_jax.finetuning.plan import load_finetuning


def load(*bindings, files=("runs/finetune.gin",)):
    return load_finetuning(ConfigSource(files, bindings))


def test_macros_and_settings_of_the_study_are_not_those_of_the_runs():
    loaded = load("TASKS=['glue_cola', 'glue_stsb']", "SEEDS=(4, 5)", "STEPS=70", "RATE=1e-3")
    plan = loaded.finetuning
    assert (plan.tasks, plan.seeds) == (("glue_cola", "glue_stsb"), (4, 5))
    assert loaded.bindings == ("STEPS=70", "RATE=1e-3")
    assert "Finetuning.tasks = %TASKS" in loaded.text


def test_the_papers_eleven_tasks_by_accuracy():
    plan = load(files=("runs/finetune_glue_superglue.gin",)).finetuning
    assert len(plan.tasks) == 11
    assert {plan.metric(task) for task in plan.tasks} == {"accuracy"}


def test_the_metric_of_a_task():
    plan = load("TASKS=['glue_stsb', 'super_glue_multirc', 'glue_sst2']").finetuning
    assert plan.metric("glue_stsb_v002") == plan.metric("glue_stsb") == "pearson_corrcoef"
    assert plan.metric("super_glue_multirc") == "f1"
    assert load("TASKS=['glue']").finetuning.metric("glue") == "score"
    given = load("Finetuning.metrics={'glue_sst2_v002': 'f1'}").finetuning
    assert given.metric("glue_sst2") == "f1"


def test_items_of_a_task():
    plan = load("Finetuning.task_items={'glue_sst2': ('STEPS=5',)}").finetuning
    assert plan.items_of("glue_sst2_v002") == ("STEPS=5",)
    assert plan.items_of("glue_cola") == ()


@pytest.mark.parametrize(
    ("binding", "message"),
    [
        ("TASKS=['glue_sst3']", r"Finetuning.tasks: unknown task 'glue_sst3'.*'glue_sst2'"),
        ("TASKS=['glue_sst2', 'glue_sst2_v002']", "has 'glue_sst2_v002' twice"),
        ("TASKS=()", "Finetuning.tasks has no task"),
        ("SEEDS=(1, 1)", "Finetuning.seeds has a value twice"),
        ("SEEDS=()", "Finetuning.seeds has no seed"),
        ("Finetuning.variants={'a/b': ()}", "the name 'a/b' cannot be that of a directory"),
        ("Finetuning.variants={'a': ('STEPS',)}", "'STEPS' is neither a gin file"),
        ("Finetuning.metrics={'glue_cola': 'f1'}", "names the task 'glue_cola', which is not"),
    ],
)
def test_mistakes_are_one_line(binding, message):
    with pytest.raises(UserError, match=message) as error:
        load(binding)
    assert len(str(error.value).splitlines()) == 1
