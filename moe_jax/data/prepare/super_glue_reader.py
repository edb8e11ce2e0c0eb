"""Reads SuperGLUE's JSONL files, to the same examples as TFDS."""

import functools
from collections.abc import Iterator
from typing import Any

from moe_jax.data.dataset_info import DATASETS
from moe_jax.data.prepare.file_layout import FileNames, official_names, partial_names
from moe_jax.data.prepare.jsonl_reader import get_field, read_objects
from moe_jax.data.prepare.row_reader import DataFile, Example, KeyedExample, MalformedRowError

# Text and number features.
FEATURES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "boolq": (("question", "passage"), ()),
    "cb": (("premise", "hypothesis"), ()),
    "copa": (("premise", "choice1", "choice2", "question"), ()),
    "multirc": (("paragraph", "question", "answer"), ()),
    "record": (("passage", "query"), ()),
    "rte": (("premise", "hypothesis"), ()),
    "wic": (("word", "sentence1", "sentence2"), ("start1", "start2", "end1", "end2")),
    "wsc": (("text", "span1_text", "span2_text"), ("span1_index", "span2_index")),
    "wsc.fixed": (("text", "span1_text", "span2_text"), ("span1_index", "span2_index")),
    "axb": (("sentence1", "sentence2"), ()),
    "axg": (("premise", "hypothesis"), ()),
}

FOLDERS: dict[str, tuple[str, ...]] = {
    "boolq": ("BoolQ",),
    "cb": ("CB",),
    "copa": ("COPA",),
    "multirc": ("MultiRC",),
    "record": ("ReCoRD",),
    "rte": ("RTE",),
    "wic": ("WiC",),
    "wsc": ("WSC",),
    "wsc.fixed": ("WSC",),
    "axb": ("AX-b", "AXb"),
    "axg": ("AX-g", "AXg"),
}


def splits(name: str) -> dict[str, tuple[FileNames, ...]]:
    """Returns the file names of each split of a task."""
    if name in ("axb", "axg"):
        return {"test": official_names(f"AX-{name[-1]}.jsonl", f"{name}.jsonl", "test.jsonl")}
    return {
        "train": official_names("train.jsonl") + partial_names("train.*.jsonl"),
        "validation": official_names("val.jsonl") + partial_names("val.*.jsonl"),
        "test": official_names("test.jsonl") + partial_names("test.*.jsonl"),
    }


def read(name: str, file: DataFile, split: str) -> Iterator[KeyedExample]:
    """Reads a file of the task `name`."""
    parse = {"multirc": _multirc, "record": _record}.get(name)
    return read_objects(file, functools.partial(parse or functools.partial(_plain, name), split))


def _plain(name: str, split: str, index: int, row: dict[str, Any]) -> list[KeyedExample]:
    if name.startswith("wsc"):
        row = {**row, **get_field(row, "target", dict)}
    texts, numbers = FEATURES[name]
    example: Example = {feature: get_field(row, feature, str) for feature in texts}
    example |= {feature: get_field(row, feature, int) for feature in numbers}
    if name == "wsc.fixed":
        example = _fixed(example)
    example["idx"] = get_field(row, "idx", int)
    example["label"] = _label(row, _labels(name), split)
    return [(example["idx"], example)]


def _labels(name: str) -> tuple[str, ...]:
    return DATASETS[f"super_glue/{name}"].labels


def _label(row: dict[str, Any], classes: tuple[str, ...], split: str) -> str | int:
    """Returns a label's name; -1 in a test split without labels."""
    label = row.get("label")
    if label is None:
        if split == "test":
            return -1
        raise MalformedRowError("no field 'label'")
    if isinstance(label, str):
        label = label.capitalize() if classes == _labels("boolq") else label
        if label in classes:
            return label
    elif label in range(len(classes)) and len(classes) == 2:
        return classes[int(label)]
    raise MalformedRowError(f"the label is {label!r}, not {' or '.join(classes)}")


def _multirc(split: str, index: int, row: dict[str, Any]) -> list[KeyedExample]:
    """Returns one example for each answer."""
    passage, number = get_field(row, "passage", dict), get_field(row, "idx", int)
    pairs: list[KeyedExample] = []
    for question in get_field(passage, "questions", list):
        for answer in get_field(question, "answers", list):
            idx = {
                "paragraph": number,
                "question": get_field(question, "idx", int),
                "answer": get_field(answer, "idx", int),
            }
            example = {
                "paragraph": get_field(passage, "text", str),
                "question": get_field(question, "question", str),
                "answer": get_field(answer, "text", str),
                "label": _label(answer, _labels("multirc"), split),
                "idx": idx,
            }
            pairs.append(("_".join(map(str, idx.values())), example))
    return pairs


def _record(split: str, index: int, row: dict[str, Any]) -> list[KeyedExample]:
    """Returns one example for each query; entities and answers are sorted and unique."""
    passage, number = get_field(row, "passage", dict), get_field(row, "idx", int)
    text = get_field(passage, "text", str)
    entities = {
        text[get_field(span, "start", int) : get_field(span, "end", int) + 1]
        for span in get_field(passage, "entities", list)
    }
    pairs: list[KeyedExample] = []
    for query in get_field(row, "qas", list):
        given = query.get("answers", []) if split == "test" else get_field(query, "answers", list)
        answers = {get_field(answer, "text", str) for answer in given}
        idx = get_field(query, "idx", int)
        example = {
            "passage": text,
            "query": get_field(query, "query", str),
            "entities": sorted(entities),
            "answers": sorted(answers),
            "idx": {"passage": number, "query": idx},
        }
        pairs.append((idx, example))
    return pairs


# Spans whose parts are not adjacent in the text.
_NOT_ADJACENT = ("Kamenev and Zinoviev", "Kamenev, Zinoviev, and Stalin")


def _fixed(example: Example) -> Example:
    """Makes both spans equal to the text, as TFDS does for wsc.fixed."""
    fixed = dict(example)
    for name in ("span1", "span2"):
        span, text = example[f"{name}_text"], example["text"]
        if span in text or span in _NOT_ADJACENT:
            continue
        words, place = text.split(), fixed[f"{name}_index"]
        if "theyscold" in span:
            fixed["span2_index"] = 10
        if not 0 <= place < len(words) or not span:
            raise MalformedRowError(f"{name} {span!r} is not in the text")
        first = span[0].lower() if words[place][0].islower() else span[0].upper()
        span = (first + span[1:]).rstrip(".").replace("\n", " ")
        if span not in text:
            raise MalformedRowError(f"{name} {span!r} is not in the text")
        fixed[f"{name}_text"] = span
    return fixed
