"""The tasks and mixtures that ship with the package, by the names that configurations use."""

import dataclasses
import functools
import os
import re
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from moe_jax.errors import nearest

if TYPE_CHECKING:  # It imports TensorFlow.
    from moe_jax.data.tasks.task_definition import TaskDefinition

# Prefixes of a user's own data: how the rest of the name is read.
USER_FILE_KINDS = {
    "text": "files of UTF-8 text, or directories of .txt and .md files",
    "jsonl": "files of JSON lines; the field after a #, or `text`",
    "tfrecord": "files of tf.train.Example; the feature after a #, or `text`",
    "tfds": "any data set that is prepared: tfds:NAME/CONFIG:VERSION#FIELD",
}
# Of a directory with the scores of a task's rows: its rows in that order.
CURRICULUM_PREFIX = "curriculum:"


@dataclasses.dataclass(frozen=True)
class PlainTextDataset:
    """A plain text in TensorFlow Datasets.

    Attributes:
        source: name, configuration and version.
        field: the feature with the text.
        what: one line for `moe-jax data list`.
    """

    source: str
    field: str
    what: str


PLAIN_TEXTS: Mapping[str, PlainTextDataset] = {
    "c4": PlainTextDataset("c4/en:3.0.1", "text", "C4, English web text (Raffel et al. 2020)"),
    "wikitext2": PlainTextDataset(
        "wikitext/wikitext-2:1.0.0", "text", "WikiText-2 (Merity et al. 2016)"
    ),
    "wikitext2_raw": PlainTextDataset(
        "wikitext/wikitext-2-raw:1.0.0", "text", "the same, not tokenised"
    ),
    "wikitext103": PlainTextDataset(
        "wikitext/wikitext-103:1.0.0", "text", "WikiText-103 (the same)"
    ),
    "wikitext103_raw": PlainTextDataset(
        "wikitext/wikitext-103-raw:1.0.0", "text", "the same, not tokenised"
    ),
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
    """Returns the mixtures by name, each with the rates of its tasks."""
    from moe_jax.data.tasks.glue.mixtures import MIXTURES

    return MIXTURES


@functools.cache
def short_names() -> Mapping[str, str]:
    """Returns the names without the version, which users write, and what they stand for."""
    from moe_jax.data.tasks.generation.generation_tasks import ALIASES

    short = {re.sub(r"_v\d+(_|$)", r"\1", name): name for name in definitions()}
    return {**short, **ALIASES}


def full_name(name: str) -> str:
    """Returns the name with its version of a text-to-text task; others as they are."""
    return short_names().get(name, name)


def is_plain_text(name: str) -> bool:
    """Returns whether a name is that of a text without inputs, in the package or a user's own."""
    prefix, _, rest = name.partition(":")
    return name == "embedded" or name in PLAIN_TEXTS or (prefix in USER_FILE_KINDS and bool(rest))


def tasks_of_dataset(source: str) -> list[str]:
    """Returns the names of the tasks made from a data set, such as `glue/sst2`."""
    short = {full: name for name, full in short_names().items()}
    found = [name for name, text in PLAIN_TEXTS.items() if text.source.partition(":")[0] == source]
    for name, definition in definitions().items():
        if definition.source.partition(":")[0] == source:
            found.append(short.get(name, name))
    return found


def names() -> list[str]:
    """Returns every name that a configuration can use, short forms included."""
    return ["embedded", *PLAIN_TEXTS, *short_names(), *definitions(), *mixtures()]


def unknown_task(name: str, registered: Collection[str]) -> str | None:
    """Returns what is wrong with the name of a task, None if there is such a task.

    Args:
        name: the task.
        registered: the names of the tasks and mixtures that users registered with seqio.
    """
    if is_plain_text(name) or name.startswith(CURRICULUM_PREFIX):
        return None
    known = [*names(), *registered]
    if name in known:
        return None
    shown = [n for n in known if "__" not in n]
    file = f" For the file of this name: 'text:{name}'." if os.path.exists(name) else ""
    return (
        f"unknown task {name!r}; `moe-jax data list` shows the known, and text:FILES, "
        f"jsonl:FILES and tfrecord:FILES are your own.{file or nearest(name, shown)}"
    )
