"""The runs of a fine-tuning study and their configurations."""

import dataclasses

import pytest
from etils import epath
from fake_finetuning import load, pretrained

from moe_jax import config, experiments
from moe_jax.compare.fingerprints import fingerprint, resolved_settings
from moe_jax.errors import UserError
from moe_jax.finetuning.jobs import find_arms, make_jobs, make_plan

VARIANTS = (
    "Finetuning.variants={'c1': ('ExpertChoice.capacity_factor=1.0',), "
    "'top2': ('routers/gshard_top2.gin',)}"
)


@pytest.fixture
def model(tmp_path):
    return pretrained(tmp_path / "ec")


def test_names_of_arms(model):
    other = dataclasses.replace(model, name="dense")
    plain, varied = load().finetuning, load(VARIANTS).finetuning
    assert [arm.name for arm in find_arms(plain, [model])] == ["ec"]
    assert [arm.name for arm in find_arms(plain, [model, other])] == ["ec", "dense"]
    assert [arm.name for arm in find_arms(varied, [model])] == ["c1", "top2"]
    names = ["ec-c1", "ec-top2", "dense-c1", "dense-top2"]
    assert [arm.name for arm in find_arms(varied, [model, other])] == names


def test_seed_by_seed_over_all_tasks_and_arms(model):
    loaded = load(VARIANTS, "TASKS=['glue_sst2', 'glue_stsb']", "SEEDS=(3, 4)", "STEPS=70")
    jobs = make_jobs(loaded, find_arms(loaded.finetuning, [model]))
    assert [job.name for job in jobs] == [
        f"{arm}/{task}/seed_{seed}"
        for seed in (3, 4)
        for task in ("glue_sst2", "glue_stsb")
        for arm in ("c1", "top2")
    ]
    assert {(job.seed, job.data_seed) for job in jobs} == {(3, 3), (4, 4)}
    assert {job.steps for job in jobs} == {70}
    assert len({job.fingerprint for job in jobs}) == len(jobs)
    first, second, third = jobs[:3]
    assert first.settings["ExpertChoice.capacity_factor"] == "1.0"
    assert second.settings["Experiment.router"] == "@GShardTop2()"
    assert (first.metric, third.metric) == ("accuracy", "pearson_corrcoef")
    assert third.settings["Checkpoints.best_is"] == "'task/pearson_corrcoef'"
    assert first.settings["Initial.checkpoint"] == repr(model.checkpoint)
    assert first.settings["Model.d_model"] == "256"


def test_settings_and_fingerprint_are_those_of_the_run(model):
    loaded = load("SEEDS=(3,)")
    (job,) = make_jobs(loaded, find_arms(loaded.finetuning, [model]))
    experiments.load(job.source)
    found = resolved_settings(config.operative())
    assert job.settings == found
    assert job.fingerprint == fingerprint(found)
    command = job.command(epath.Path("/study"))
    assert command.startswith(f"moe-jax train --gin_file={model.config} ")
    assert command.endswith("--output_dir=/study/runs/ec/glue_sst2/seed_3")


def test_the_plan(model):
    loaded = load(VARIANTS)
    plan = make_plan(loaded, find_arms(loaded.finetuning, [model]), "moe-jax finetune ...")
    assert plan.tasks == {"glue_sst2_v002": "accuracy"}
    assert plan.arms["c1"] == f"from {model.checkpoint}: ExpertChoice.capacity_factor=1.0"
    assert plan.question == "How do the models compare when fine-tuned on glue_sst2?"


def test_mistakes_name_their_arm_and_task_once(model):
    loaded = load("Finetuning.variants={'a': (), 'b': ('Model.d_modle=4',)}")
    with pytest.raises(UserError, match=r"^b on glue_sst2: .*d_modle"):
        make_jobs(loaded, find_arms(loaded.finetuning, [model]))
    loaded = load("TASKS=['glue_sst2', 'glue_cola']", "STEPS=-1")
    with pytest.raises(UserError) as error:
        make_jobs(loaded, find_arms(loaded.finetuning, [model]))
    assert not str(error.value).startswith("ec on")
    assert len(str(error.value).splitlines()) <= 3
