"""A fine-tuning study: the gin file that says which tasks are trained, from what, and how.

    Finetuning.tasks = ('glue_sst2', 'glue_rte')
    Finetuning.variants = {
        'c2': ('ExpertChoice.capacity_factor=2.0',),
        'c1': ('ExpertChoice.capacity_factor=1.0',),
    }

An item of `common`, `variants` or `task_items` is a gin file, if it ends in `.gin`, or a binding,
as after `--gin.` on the command line. A run is the configuration of its checkpoint's run, then the
common items, those of the variant, and those of the task.
"""

import dataclasses
from collections.abc import Mapping

from moe_jax.compare import plan_files
from moe_jax.compare.plan_rules import bad_names, check_items, check_seeds, raise_all
from moe_jax.config_source import ConfigSource
from moe_jax.data.tasks import catalog
from moe_jax.errors import UserError, nearest
from moe_jax.registration import configurable
from moe_jax.settings import Name, Seed, Settings, rule

# The macros of `runs/finetune.gin` that the plan itself reads.
MACROS = ("TASKS", "SEEDS")
# Metrics that are reported of tasks without a plain accuracy, by the start of their names.
_METRICS = {
    "glue_stsb": "pearson_corrcoef",
    "super_glue_multirc": "f1",
    "super_glue_record": "f1",
}


@configurable
@dataclasses.dataclass(frozen=True)
class Finetuning(Settings):
    """What a fine-tuning study trains.

    Attributes:
        tasks: names of seqio tasks; each is fine-tuned on by itself. `glue_mnli` and a mixture such
            as `glue` are also names.
        seeds: seeds of the runs (`Train.seed` and `Data.seed`).
        question: the question in one sentence; by default made of the tasks.
        common: items that all runs share.
        variants: items of each way to fine-tune a checkpoint, by its name, such as other capacity
            factors; without any, there is one way.
        task_items: items of the runs of single tasks, by the task's name.
        metrics: the metric that chooses the best checkpoint of a task and is reported, by the
            task's name; by default `accuracy`, for STS-B `pearson_corrcoef`, `f1` for MultiRC and
            ReCoRD, and `score`, the mean over its tasks, for a mixture.
        baselines: also score the most frequent class and a bag of words.
        test_split: also write the predictions for the test split.
    """

    tasks: tuple[Name, ...]
    seeds: tuple[Seed, ...] = (1, 2, 3)
    question: str = ""
    common: tuple[Name, ...] = ("finetune/task.gin",)
    variants: Mapping[Name, tuple[Name, ...]] = dataclasses.field(default_factory=dict)
    task_items: Mapping[Name, tuple[Name, ...]] = dataclasses.field(default_factory=dict)
    metrics: Mapping[Name, Name] = dataclasses.field(default_factory=dict)
    baselines: bool = True
    test_split: bool = False

    @staticmethod
    @rule
    def _tasks_are_known(tasks: tuple[str, ...]) -> None:
        if not tasks:
            raise UserError("Finetuning.tasks has no task")
        raise_all(
            f"Finetuning.tasks: {message}"
            for task in tasks
            if (message := catalog.unknown_task(task)) is not None
        )
        full = [catalog.full_name(task) for task in tasks]
        raise_all(
            f"Finetuning.tasks has {task!r} twice"
            for place, task in enumerate(tasks)
            if full[place] in full[:place]
        )

    @staticmethod
    @rule
    def _named_tasks_are_trained(
        tasks: tuple[str, ...],
        task_items: Mapping[str, tuple[str, ...]],
        metrics: Mapping[str, str],
    ) -> None:
        full = {catalog.full_name(task) for task in tasks}
        raise_all(
            f"Finetuning.{setting} names the task {name!r}, which is not in Finetuning.tasks."
            f"{nearest(name, tasks)}"
            for setting, names in {"task_items": task_items, "metrics": metrics}.items()
            for name in names
            if catalog.full_name(name) not in full
        )

    @staticmethod
    @rule
    def _variants_can_be_directories(variants: Mapping[str, tuple[str, ...]]) -> None:
        raise_all(f"Finetuning.variants: {message}" for message in bad_names(variants))

    @staticmethod
    @rule
    def _items_are_files_or_bindings(
        common: tuple[str, ...],
        variants: Mapping[str, tuple[str, ...]],
        task_items: Mapping[str, tuple[str, ...]],
    ) -> None:
        named = {
            "common": common,
            **{f"variants[{name!r}]": items for name, items in variants.items()},
            **{f"task_items[{name!r}]": items for name, items in task_items.items()},
        }
        check_items("Finetuning", named)

    @staticmethod
    @rule
    def _seeds_are_distinct(seeds: tuple[int, ...]) -> None:
        check_seeds("Finetuning", seeds)

    def metric(self, task: str) -> str:
        """Returns the metric that is reported of a task."""
        full = catalog.full_name(task)
        given = {catalog.full_name(name): metric for name, metric in self.metrics.items()}
        if full in given:
            return given[full]
        if full in catalog.mixtures():
            return "score"
        return next((m for start, m in _METRICS.items() if full.startswith(start)), "accuracy")

    def items_of(self, task: str) -> tuple[str, ...]:
        """Returns the items of the runs of a task."""
        full = catalog.full_name(task)
        return next(
            (own for name, own in self.task_items.items() if catalog.full_name(name) == full),
            (),
        )


@dataclasses.dataclass(frozen=True)
class LoadedFinetuning:
    """A fine-tuning study with the configuration that it was read from.

    Attributes:
        finetuning: the study.
        bindings: bindings of the command line that apply to all runs.
        search_paths: directories in which gin files of the runs are looked up.
        text: text of the gin files.
    """

    finetuning: Finetuning
    bindings: tuple[str, ...]
    search_paths: tuple[str, ...]
    text: str


def load_finetuning(source: ConfigSource) -> LoadedFinetuning:
    """Reads a fine-tuning study from gin files.

    Bindings of `Finetuning` and of the macros TASKS and SEEDS apply to the study, all others to the
    runs.

    Raises:
        UserError: for all mistakes in it, one in a line.
    """
    places = "Finetuning.common, .variants or .task_items"
    read = plan_files.read_plan(source, Finetuning.settings_name, _items, places, MACROS)
    return LoadedFinetuning(read.plan, read.bindings, read.search_paths, read.text)


def _items(plan: Finetuning) -> list[str]:
    groups = (plan.common, *plan.variants.values(), *plan.task_items.values())
    return [item for items in groups for item in items]
