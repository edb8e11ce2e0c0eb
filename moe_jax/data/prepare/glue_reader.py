"""Reads GLUE's TSV files.

Quotes have no meaning in any of them; only CoLA's train and dev files lack a header.
"""

import functools
from collections.abc import Iterator

from moe_jax.data.dataset_info import DATASETS
from moe_jax.data.prepare.dataset_spec import Reader
from moe_jax.data.prepare.glue_files import DEV_IDS, TASKS
from moe_jax.data.prepare.row_reader import (
    DataFile,
    Example,
    KeyedExample,
    MalformedRowError,
    decode,
    header_of,
    not_empty,
    read_tsv,
    split_fields,
)
from moe_jax.errors import UserError


def glue_reader(name: str) -> Reader:
    """Returns the reader of a task's files."""
    if name == "cola":
        return _read_cola
    if name == "mrpc":
        return _read_mrpc
    return functools.partial(_read, name)


def _read(name: str, file: DataFile, split: str) -> Iterator[KeyedExample]:
    """Reads a file with a header."""
    task, classes = TASKS[name], DATASETS[f"glue/{name}"].labels
    header = header_of(file)
    columns = list(task.columns.values())
    if not split.startswith("test"):
        columns.append(task.label)

    def parse(row: tuple[int, bytes]) -> list[KeyedExample]:
        index, line = row
        values = dict(zip(header, split_fields(line, len(header)), strict=True))
        example: Example = {text: values[column] for text, column in task.columns.items()}
        label = values.get(task.label, "-1") if split.startswith("test") else values[task.label]
        example["label"] = read_label(classes, label, unknown=split.startswith("test"))
        return [(index, {**example, "idx": index})]

    return file.rows(read_tsv(file, columns), parse)


def read_label(classes: tuple[str, ...], label: str, unknown: bool = False) -> str | float:
    """Returns a label's name, or the score for a task without classes; -1 if it is unknown.

    Raises:
        MalformedRowError: for any other label.
    """
    if unknown and label == "-1":
        return -1 if classes else -1.0
    if label in classes:
        return label
    try:
        number = float(label)
        if not classes and 0 <= number <= 5:
            return number
        if number in range(len(classes)):
            return classes[int(number)]
    except ValueError:
        pass
    what = " or ".join(classes) if classes else "a number from 0 to 5"
    raise MalformedRowError(f"the label is {label!r}, not {what}")


def _read_cola(file: DataFile, split: str) -> Iterator[KeyedExample]:
    if split == "test":
        return _read("cola", file, split)

    classes = DATASETS["glue/cola"].labels

    def parse(row: tuple[int, bytes]) -> list[KeyedExample]:
        index, line = row
        _, label, _, sentence = split_fields(line, 4)
        return [(index, {"sentence": sentence, "label": read_label(classes, label), "idx": index})]

    return file.rows(read_tsv(file, None), parse)


def _read_mrpc(file: DataFile, split: str) -> Iterator[KeyedExample]:
    """Reads Microsoft's files, split by a list of ids, or GLUE's files of each split.

    Test labels are hidden, as in TFDS, although Microsoft's file has them.
    """
    pairs = _read("mrpc", file, split)
    if split == "test":
        return ((key, {**example, "label": -1}) for key, example in pairs)
    if not file.path.name.lower().startswith("msr_"):
        return pairs
    return _read_microsoft(file, split, _dev_ids(file))


def _read_microsoft(
    file: DataFile, split: str, dev_ids: set[tuple[str, str]]
) -> Iterator[KeyedExample]:
    task, classes = TASKS["mrpc"], DATASETS["glue/mrpc"].labels
    header = header_of(file)

    def parse(row: tuple[int, bytes]) -> list[KeyedExample]:
        index, line = row
        values = dict(zip(header, split_fields(line, len(header)), strict=True))
        if ((values["#1 ID"], values["#2 ID"]) in dev_ids) != (split == "validation"):
            return []
        example: Example = {text: values[column] for text, column in task.columns.items()}
        label = read_label(classes, values[task.label])
        return [(index, {**example, "label": label, "idx": index})]

    return file.rows(read_tsv(file, [*task.columns.values(), task.label, "#1 ID", "#2 ID"]), parse)


def _dev_ids(file: DataFile) -> set[tuple[str, str]]:
    for path in sorted(file.path.parent.iterdir()):
        if path.name.lower().removesuffix(".gz") in DEV_IDS:
            lines = [decode(line).split("\t") for _, line in not_empty(DataFile(path).lines())]
            return {(line[0], line[1]) for line in lines if len(line) > 1}
    raise UserError(f"{file.path} needs {DEV_IDS[0]} beside it: which pairs are validation data")
