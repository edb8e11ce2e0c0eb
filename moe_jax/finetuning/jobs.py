"""The runs of a fine-tuning study: every model and variant, on every task, with every seed."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from moe_jax.compare.arms import load_settings
from moe_jax.compare.fingerprints import fingerprint
from moe_jax.compare.jobs import Job
from moe_jax.compare.plan_files import is_file
from moe_jax.compare.task_records import FinetuningPlan
from moe_jax.config_source import ConfigSource
from moe_jax.data.tasks import catalog
from moe_jax.errors import UserError, combined
from moe_jax.finetuning.models import PretrainedModel
from moe_jax.finetuning.plan import Finetuning, LoadedFinetuning


@dataclasses.dataclass(frozen=True)
class TaskJob(Job):
    """A run of a fine-tuning study.

    Attributes:
        task: full name of its task.
        metric: the metric that is reported of the task.
        model: the run directory that it starts from.
    """

    task: str
    metric: str
    model: str

    def facts(self, study_directory: epath.Path) -> dict[str, Any]:
        """Returns what `study.json` says of the job besides its state."""
        return {**super().facts(study_directory), "task": self.task, "metric": self.metric}


@dataclasses.dataclass(frozen=True)
class TaskArm:
    """A model and a way to fine-tune it.

    Attributes:
        name: its name in the study.
        description: what it is in a few words.
        model: the model.
        items: the items of the variant.
    """

    name: str
    description: str
    model: PretrainedModel
    items: tuple[str, ...]


def find_arms(plan: Finetuning, models: Sequence[PretrainedModel]) -> list[TaskArm]:
    """Returns every model with every variant.

    The name is that of what there are several of, and `MODEL-VARIANT` if there are several of both.
    """
    arms = []
    variants = plan.variants or {"": ()}
    for model in models:
        for variant, items in variants.items():
            parts = [model.name] if len(models) > 1 or not variant else []
            parts += [variant] if variant else []
            words = f"from {model.checkpoint}" + (f": {', '.join(items)}" if items else "")
            arms.append(TaskArm("-".join(parts), words, model, tuple(items)))
    return arms


def make_jobs(loaded: LoadedFinetuning, arms: Sequence[TaskArm]) -> list[TaskJob]:
    """Returns the runs of a study in their order: seed by seed over all tasks, over all arms.

    Raises:
        UserError: for all mistakes in all configurations, one in a line; each names its arm and
            task unless all have it.
    """
    plan = loaded.finetuning
    bases: dict[tuple[str, str], tuple[ConfigSource, int, Mapping[str, str]]] = {}
    mistakes: dict[str, list[str]] = {}
    for task in plan.tasks:
        for arm in arms:
            source = _source(loaded, arm, task)
            try:
                experiment, settings = load_settings(source)
            except UserError as error:
                for line in str(error).splitlines():
                    mistakes.setdefault(line, []).append(f"{arm.name} on {task}")
                continue
            bases[arm.name, task] = source, experiment.train.steps, settings
    if mistakes:
        total = len(plan.tasks) * len(arms)
        raise combined(
            line if len(names) == total else f"{names[0]}{_more(names)}: {line}"
            for line, names in mistakes.items()
        )
    return [
        _job(plan, arm, task, seed, bases[arm.name, task])
        for seed in plan.seeds
        for task in plan.tasks
        for arm in arms
    ]


def make_plan(loaded: LoadedFinetuning, arms: Sequence[TaskArm], command: str) -> FinetuningPlan:
    """Returns the plan of a study, with the command line that runs it."""
    plan = loaded.finetuning
    names = ", ".join(plan.tasks)
    several = "How do the models compare" if len(arms) > 1 else "How well does the model do"
    return FinetuningPlan(
        question=plan.question or f"{several} when fine-tuned on {names}?",
        arms={arm.name: arm.description for arm in arms},
        tasks={catalog.full_name(task): plan.metric(task) for task in plan.tasks},
        seeds=tuple(plan.seeds),
        command=command,
        source=loaded.text,
    )


def _more(names: Sequence[str]) -> str:
    return f" and {len(names) - 1} more" if len(names) > 1 else ""


def _source(loaded: LoadedFinetuning, arm: TaskArm, task: str) -> ConfigSource:
    plan = loaded.finetuning
    items = [*plan.common, *arm.items, *plan.items_of(task)]
    bindings = [item for item in items if not is_file(item)]
    splits = ("validation", "test") if plan.test_split else ("validation",)
    return ConfigSource(
        (arm.model.config, *(item for item in items if is_file(item))),
        (
            f"TASK={task!r}",
            f"BEST={f'task/{plan.metric(task)}'!r}",
            f"Initial.checkpoint={arm.model.checkpoint!r}",
            f"TaskScores.predicted_splits={splits!r}",
            *bindings,
            *loaded.bindings,
        ),
        loaded.search_paths,
    )


def _job(
    plan: Finetuning,
    arm: TaskArm,
    task: str,
    seed: int,
    base: tuple[ConfigSource, int, Mapping[str, str]],
) -> TaskJob:
    source, steps, settings = base
    values = {"Train.seed": seed, "Data.seed": seed}
    # Every run uses these settings, and they decide no others.
    settings = {**settings, **{name: repr(value) for name, value in values.items()}}
    bindings = (*source.bindings, *(f"{name}={value!r}" for name, value in values.items()))
    return TaskJob(
        name=f"{arm.name}/{task}/seed_{seed}",
        arm=arm.name,
        role="comparison",
        seed=seed,
        data_seed=seed,
        learning_rate=None,
        source=dataclasses.replace(source, bindings=bindings),
        steps=steps,
        settings=settings,
        fingerprint=fingerprint(settings),
        task=catalog.full_name(task),
        metric=plan.metric(task),
        model=arm.model.checkpoint,
    )
