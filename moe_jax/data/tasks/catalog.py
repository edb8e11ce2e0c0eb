"""The names of tasks and mixtures: the package's, and those registered with seqio by users."""

import dataclasses
import functools
import os
import re
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

from moe_jax.data.dataset_info import versioned
from moe_jax.errors import nearest

if TYPE_CHECKING:  # It imports TensorFlow.
    from moe_jax.data.tasks.task_definition import TaskDefinition

# Prefixes of names of a user's own data, with the meaning of the rest of the name.
USER_FILE_KINDS = {
    "text": "files of UTF-8 text, or directories of .txt and .md files",
    "jsonl": "files of JSON lines; the field after a #, or `text`",
    "tfrecord": "files of tf.train.Example; the feature after a #, or `text`",
    "tfds": "any data set that is prepared: tfds:NAME/CONFIG:VERSION#FIELD",
}
# Prefix of a directory with the scores of a task's examples: the examples in that order.
CURRICULUM_PREFIX = "curriculum:"
# The end of names that `moe_jax.data.tasks.registry` registers with seqio.
INTERNAL_NAME = re.compile(r"__[0-9a-f]{12}$")


@dataclasses.dataclass(frozen=True)
class PlainTextDataset:
    """A plain text in TensorFlow Datasets.

    Attributes:
        source: name, configuration and version.
        field: feature with the text.
        description: one line for `moe-jax data list`.
    """

    source: str
    field: str
    description: str


def _wikitext(config: str, description: str) -> PlainTextDataset:
    return PlainTextDataset(versioned(f"wikitext/{config}"), "text", description)


PLAIN_TEXTS: Mapping[str, PlainTextDataset] = {
    "c4": PlainTextDataset(versioned("c4/en"), "text", "C4, English web text (Raffel et al. 2020)"),
    "wikitext2": _wikitext("wikitext-2", "WikiText-2 (Merity et al. 2016)"),
    "wikitext2_raw": _wikitext("wikitext-2-raw", "the same, not tokenised"),
    "wikitext103": _wikitext("wikitext-103", "WikiText-103 (the same)"),
    "wikitext103_raw": _wikitext("wikitext-103-raw", "the same, not tokenised"),
    "lm1b": PlainTextDataset(
        "lm1b:1.1.0", "text", "One Billion Word benchmark (Chelba et al. 2013)"
    ),
    "pg19": PlainTextDataset("pg19:0.1.1", "book_text", "Project Gutenberg books before 1919"),
}


@functools.cache
def definitions() -> "Mapping[str, TaskDefinition]":
    """Returns the text-to-text tasks by their full names, such as `glue_sst2_v002`."""
    from moe_jax.data.tasks.generation.generation_tasks import DEFINITIONS as generation
    from moe_jax.data.tasks.glue.definitions import DEFINITIONS as glue

    return {**glue, **generation}


@functools.cache
def mixtures() -> Mapping[str, Mapping[str, float]]:
    """Returns the package's mixtures by name, each with the rates of its tasks."""
    from moe_jax.data.tasks.glue.mixtures import MIXTURES

    return MIXTURES


@functools.cache
def short_names() -> Mapping[str, str]:
    """Returns the full names of the text-to-text tasks by their names without the version."""
    from moe_jax.data.tasks.generation.generation_tasks import ALIASES

    short = {re.sub(r"_v\d+(_|$)", r"\1", name): name for name in definitions()}
    return {**short, **ALIASES}


def full_name(name: str) -> str:
    """Returns the full name of a text-to-text task; other names unchanged."""
    return short_names().get(name, name)


def registered_tasks() -> dict[str, tuple[str, ...]]:
    """Returns the tasks and mixtures that users registered with seqio, with their metrics' names.

    It does not import seqio: a module that registers a task has imported it.
    """
    seqio = sys.modules.get("seqio")
    if seqio is None:
        return {}
    found: dict[str, tuple[str, ...]] = {}
    for name in sorted({*seqio.TaskRegistry.names(), *seqio.MixtureRegistry.names()}):
        if INTERNAL_NAME.search(name):
            continue
        tasks = seqio.get_subtasks(seqio.get_mixture_or_task(name))
        metrics = (fn for task in tasks for fn in (task.metric_fns or ()))
        found[name] = tuple(dict.fromkeys(getattr(fn, "__name__", str(fn)) for fn in metrics))
    return found


def is_plain_text(name: str) -> bool:
    """Returns whether a task is a text without inputs, of the package or of the user's files."""
    prefix, _, rest = name.partition(":")
    return name == "embedded" or name in PLAIN_TEXTS or (prefix in USER_FILE_KINDS and bool(rest))


def tasks_of_dataset(dataset: str) -> list[str]:
    """Returns the names of the tasks that read a data set, such as `glue/sst2`."""
    short = {full: name for name, full in short_names().items()}
    found = [name for name, text in PLAIN_TEXTS.items() if text.source.partition(":")[0] == dataset]
    for name, definition in definitions().items():
        if definition.source.partition(":")[0] == dataset:
            found.append(short.get(name, name))
    return found


def names() -> list[str]:
    """Returns every name that a configuration can use, aliases and registered tasks included."""
    known = ["embedded", *PLAIN_TEXTS, *short_names(), *definitions(), *mixtures()]
    return [*known, *registered_tasks()]


def unknown_task(name: str) -> str | None:
    """Returns the error message for the name of a task that does not exist, None if it does."""
    if is_plain_text(name) or name.startswith(CURRICULUM_PREFIX):
        return None
    known = names()
    if name in known:
        return None
    file = f" For the file of this name: 'text:{name}'." if os.path.exists(name) else ""
    return (
        f"unknown task {name!r}; `moe-jax data list` shows the known, and text:FILES, "
        f"jsonl:FILES and tfrecord:FILES are your own.{file or nearest(name, known)}"
    )
