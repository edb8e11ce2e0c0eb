"""The data sets with a name of their own: files, readers, TFDS's names and versions."""

import functools
from collections.abc import Callable
from pathlib import Path

from moe_jax.data.prepare import glue, glue_tasks, superglue
from moe_jax.data.prepare.dataset import DataSet
from moe_jax.data.prepare.layout import (
    Found,
    Names,
    find_named,
    official,
    partial,
)
from moe_jax.data.prepare.questions import read_pronouns, read_questions
from moe_jax.data.prepare.summaries import read_summaries
from moe_jax.data.prepare.texts import read_c4, read_dialogues, read_wikitext
from moe_jax.data.prepare.translations import find_translations, read_translations
from moe_jax.data.prepare.words import find_or_hold_out


def known() -> dict[str, DataSet]:
    """Returns all data sets with a name of their own."""
    sets = [*_glue(), *_super_glue(), *_others(), *_wikitexts()]
    return {data_set.name: data_set for data_set in sets}


def _named(
    roots: tuple[str, ...], folders: tuple[str, ...], splits: dict[str, tuple[Names, ...]]
) -> Callable[[Path], Found]:
    return functools.partial(find_named, roots=roots, folders=folders, splits=splits)


def _glue() -> list[DataSet]:
    roots = ("glue", "glue_data")
    return [
        DataSet(
            f"glue_{name}",
            "glue",
            name,
            "2.0.0",
            glue.reader(name),
            _named(roots, task.folders, glue_tasks.splits(name)),
        )
        for name, task in glue_tasks.TASKS.items()
    ]


def _super_glue() -> list[DataSet]:
    roots = ("superglue", "super_glue")
    # T5 uses wsc.fixed, and so "wsc" alone means that.
    names = {"wsc": "wsc_as_published", "wsc.fixed": "wsc"}
    return [
        DataSet(
            f"super_glue_{names.get(config, config)}",
            "super_glue",
            config,
            "1.0.2",
            functools.partial(superglue.read, config),
            _named(roots, folders, superglue.splits(config)),
        )
        for config, folders in superglue.FOLDERS.items()
    ]


_PRONOUNS = {"train": official("train.c.txt"), "test": official("test.c.txt")}
_SQUAD = {
    "train": official("train-v1.1.json", "train.json", "train.jsonl"),
    "validation": official("dev-v1.1.json", "dev.json", "dev.jsonl", "validation.jsonl")
    + partial("xquad.en.json", note="1,190 of the 10,570 official questions"),
}
_SUMMARIES = {
    split: official(f"all_{short}.txt", f"{split}.jsonl", f"{short}.jsonl")
    + partial(f"*_{split}.jsonl")
    for split, short in (("train", "train"), ("validation", "val"), ("test", "test"))
}
_DIALOGUES = {
    "train": official("train.jsonl", "soda_train.jsonl") + partial("original_examples.jsonl"),
    "validation": official("valid.jsonl", "validation.jsonl", "soda_valid.jsonl"),
    "test": official("test.jsonl", "soda_test.jsonl"),
}


def _others() -> list[DataSet]:
    pronoun_folders = ("definite_pronoun_resolution", "dpr")
    return [
        DataSet(
            pronoun_folders[0],
            pronoun_folders[0],
            "",
            "1.1.0",
            read_pronouns,
            _named((), pronoun_folders, _PRONOUNS),
        ),
        DataSet("squad", "squad", "v1.1", "3.0.0", read_questions, _named((), ("squad",), _SQUAD)),
        DataSet(
            "cnn_dailymail",
            "cnn_dailymail",
            "",
            "3.4.0",
            read_summaries,
            _named((), ("cnn_dailymail", "cnn-dailymail"), _SUMMARIES),
        ),
        DataSet(
            "wmt19_translate_de_en",
            "wmt19_translate",
            "de-en",
            "1.0.0",
            read_translations,
            find_translations,
        ),
        DataSet(
            "c4",
            "c4",
            "en",
            "3.0.1",
            read_c4,
            functools.partial(find_or_hold_out, endings=(".json", ".jsonl"), anywhere=True),
            "c4",
        ),
        DataSet(
            "soda",
            "soda",
            "dialogues",
            "1.0.0",
            read_dialogues,
            _named((), ("soda",), _DIALOGUES),
            "dialogues",
        ),
    ]


def _wikitexts() -> list[DataSet]:
    sets = []
    for size in ("2", "103"):
        for raw in ("", "-raw"):
            config = f"wikitext-{size}{raw}"
            ending = "raw" if raw else "tokens"
            files = {"train": "train", "validation": "valid", "test": "test"}
            splits = {
                split: official(f"wiki.{word}.{ending}", f"{word}.txt")
                for split, word in files.items()
            }
            folders = (config, config + "-v1", config.replace("-", ""), f"wikitext{size}")
            sets.append(
                DataSet(
                    f"wikitext{size}{raw.replace('-', '_')}",
                    "wikitext",
                    config,
                    "1.0.0",
                    read_wikitext,
                    _named((), tuple(dict.fromkeys(folders)), splits),
                    "text",
                )
            )
    return sets
