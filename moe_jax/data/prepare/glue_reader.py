"""GLUE's TSV files. Quotes mean nothing in any of them; only CoLA's train and dev lack a header."""

import functools
from collections.abc import Iterator

from moe_jax.data.prepare.dataset_spec import Reader
from moe_jax.data.prepare.glue_files import DEV_IDS, TASKS, GlueFiles
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


def reader(name: str) -> Reader:
    """Returns what reads a task's files."""
    if name == "cola":
        return _read_cola
    if name == "mrpc":
        return _read_mrpc
    return functools.partial(_read, TASKS[name])


def _read(task: GlueFiles, file: DataFile, split: str) -> Iterator[KeyedExample]:
    """Reads a file with a header."""
    header = header_of(file)
    columns = list(task.columns.values())
    if not split.startswith("test"):
        columns.append(task.label)

    def parse(row: tuple[int, bytes]) -> list[KeyedExample]:
        index, line = row
        values = dict(zip(header, split_fields(line, len(header)), strict=True))
        example: Example = {name: values[column] for name, column in task.columns.items()}
        label = values.get(task.label, "-1") if split.startswith("test") else values[task.label]
        example["label"] = read_label(task, label, unknown=split.startswith("test"))
        return [(index, {**example, "idx": index})]

    return file.rows(read_tsv(file, columns), parse)


def read_label(task: GlueFiles, label: str, unknown: bool = False) -> str | float:
    """Returns a label's name, or the number for a task without classes; -1 where it is unknown.

    Raises:
        MalformedRowError: if it is neither.
    """
    if unknown and label == "-1":
        return -1 if task.classes else -1.0
    if label in task.classes:
        return label
    try:
        number = float(label)
        if not task.classes and 0 <= number <= 5:
            return number
        if number in range(len(task.classes)):
            return task.classes[int(number)]
    except ValueError:
        pass
    what = " or ".join(task.classes) if task.classes else "a number from 0 to 5"
    raise MalformedRowError(f"the label is {label!r}, not {what}")


def _read_cola(file: DataFile, split: str) -> Iterator[KeyedExample]:
    task = TASKS["cola"]
    if split == "test":
        return _read(task, file, split)

    def parse(row: tuple[int, bytes]) -> list[KeyedExample]:
        index, line = row
        _, label, _, sentence = split_fields(line, 4)
        return [(index, {"sentence": sentence, "label": read_label(task, label), "idx": index})]

    return file.rows(read_tsv(file, None), parse)


def _read_mrpc(file: DataFile, split: str) -> Iterator[KeyedExample]:
    """Reads Microsoft's files, of which a list of ids makes two splits, or GLUE's divided ones.

    Test labels are hidden, as TFDS does, although Microsoft's file has them.
    """
    pairs = _read(TASKS["mrpc"], file, split)
    if split == "test":
        return ((key, {**example, "label": -1}) for key, example in pairs)
    if not file.path.name.lower().startswith("msr_"):
        return pairs
    return _read_microsoft(file, split, _dev_ids(file))


def _read_microsoft(
    file: DataFile, split: str, dev_ids: set[tuple[str, str]]
) -> Iterator[KeyedExample]:
    task = TASKS["mrpc"]
    header = header_of(file)

    def parse(row: tuple[int, bytes]) -> list[KeyedExample]:
        index, line = row
        values = dict(zip(header, split_fields(line, len(header)), strict=True))
        if ((values["#1 ID"], values["#2 ID"]) in dev_ids) != (split == "validation"):
            return []
        example: Example = {name: values[column] for name, column in task.columns.items()}
        label = read_label(task, values[task.label])
        return [(index, {**example, "label": label, "idx": index})]

    return file.rows(read_tsv(file, [*task.columns.values(), task.label, "#1 ID", "#2 ID"]), parse)


def _dev_ids(file: DataFile) -> set[tuple[str, str]]:
    for path in sorted(file.path.parent.iterdir()):
        if path.name.lower().removesuffix(".gz") in DEV_IDS:
            lines = [decode(line).split("\t") for _, line in not_empty(DataFile(path).lines())]
            return {(line[0], line[1]) for line in lines if len(line) > 1}
    raise UserError(f"{file.path} needs {DEV_IDS[0]} beside it: which pairs are validation data")
