"""The data sets that can be prepared: TFDS's names, files and readers."""

import functools
from collections.abc import Callable
from pathlib import Path

from moe_jax.data.dataset_info import DATASETS
from moe_jax.data.prepare import glue_files, glue_reader, super_glue_reader
from moe_jax.data.prepare.cnn_dailymail_reader import read_cnn_dailymail
from moe_jax.data.prepare.dataset_spec import DatasetSpec
from moe_jax.data.prepare.definite_pronoun_reader import read_definite_pronouns
from moe_jax.data.prepare.file_layout import (
    FileNames,
    SplitFiles,
    find_named,
    official_names,
    partial_names,
)
from moe_jax.data.prepare.split_words import find_or_hold_out
from moe_jax.data.prepare.squad_reader import read_squad
from moe_jax.data.prepare.text_readers import read_c4, read_dialogues, read_wikitext
from moe_jax.data.prepare.wmt_reader import find_wmt, read_wmt


def known_datasets() -> dict[str, DatasetSpec]:
    """Returns all data sets by name."""
    sets = [*_glue(), *_super_glue(), *_others(), *_wikitexts()]
    return {spec.name: spec for spec in sets}


def _named(
    roots: tuple[str, ...], folders: tuple[str, ...], splits: dict[str, tuple[FileNames, ...]]
) -> Callable[[Path], SplitFiles]:
    return functools.partial(find_named, roots=roots, folders=folders, splits=splits)


def _glue() -> list[DatasetSpec]:
    roots = ("glue", "glue_data")
    return [
        DatasetSpec(
            f"glue_{name}",
            "glue",
            name,
            DATASETS[f"glue/{name}"].version,
            glue_reader.glue_reader(name),
            _named(roots, task.folders, glue_files.splits(name)),
        )
        for name, task in glue_files.TASKS.items()
    ]


def _super_glue() -> list[DatasetSpec]:
    roots = ("superglue", "super_glue")
    # T5 uses wsc.fixed, so that is the meaning of "wsc".
    names = {"wsc": "wsc_as_published", "wsc.fixed": "wsc"}
    return [
        DatasetSpec(
            f"super_glue_{names.get(config, config)}",
            "super_glue",
            config,
            DATASETS[f"super_glue/{config}"].version,
            functools.partial(super_glue_reader.read, config),
            _named(roots, folders, super_glue_reader.splits(config)),
        )
        for config, folders in super_glue_reader.FOLDERS.items()
    ]


_PRONOUNS = {"train": official_names("train.c.txt"), "test": official_names("test.c.txt")}
_SQUAD = {
    "train": official_names("train-v1.1.json", "train.json", "train.jsonl"),
    "validation": official_names("dev-v1.1.json", "dev.json", "dev.jsonl", "validation.jsonl")
    + partial_names("xquad.en.json", note="1,190 of the 10,570 official questions"),
}
_SUMMARIES = {
    split: official_names(f"all_{short}.txt", f"{split}.jsonl", f"{short}.jsonl")
    + partial_names(f"*_{split}.jsonl")
    for split, short in (("train", "train"), ("validation", "val"), ("test", "test"))
}
_DIALOGUES = {
    "train": official_names("train.jsonl", "soda_train.jsonl")
    + partial_names("original_examples.jsonl"),
    "validation": official_names("valid.jsonl", "validation.jsonl", "soda_valid.jsonl"),
    "test": official_names("test.jsonl", "soda_test.jsonl"),
}


def _others() -> list[DatasetSpec]:
    pronoun_folders = ("definite_pronoun_resolution", "dpr")
    return [
        DatasetSpec(
            pronoun_folders[0],
            pronoun_folders[0],
            "",
            DATASETS["definite_pronoun_resolution"].version,
            read_definite_pronouns,
            _named((), pronoun_folders, _PRONOUNS),
        ),
        DatasetSpec(
            "squad",
            "squad",
            "v1.1",
            DATASETS["squad/v1.1"].version,
            read_squad,
            _named((), ("squad",), _SQUAD),
        ),
        DatasetSpec(
            "cnn_dailymail",
            "cnn_dailymail",
            "",
            DATASETS["cnn_dailymail"].version,
            read_cnn_dailymail,
            _named((), ("cnn_dailymail", "cnn-dailymail"), _SUMMARIES),
        ),
        DatasetSpec(
            "wmt19_translate_de_en",
            "wmt19_translate",
            "de-en",
            DATASETS["wmt19_translate/de-en"].version,
            read_wmt,
            find_wmt,
        ),
        DatasetSpec(
            "c4",
            "c4",
            "en",
            DATASETS["c4/en"].version,
            read_c4,
            functools.partial(find_or_hold_out, endings=(".json", ".jsonl"), anywhere=True),
            "c4",
        ),
        DatasetSpec(
            "soda",
            "soda",
            "dialogues",
            DATASETS["soda/dialogues"].version,
            read_dialogues,
            _named((), ("soda",), _DIALOGUES),
            "dialogues",
        ),
    ]


def _wikitexts() -> list[DatasetSpec]:
    sets = []
    for size in ("2", "103"):
        for raw in ("", "-raw"):
            config = f"wikitext-{size}{raw}"
            ending = "raw" if raw else "tokens"
            files = {"train": "train", "validation": "valid", "test": "test"}
            splits = {
                split: official_names(f"wiki.{word}.{ending}", f"{word}.txt")
                for split, word in files.items()
            }
            folders = (config, config + "-v1", config.replace("-", ""), f"wikitext{size}")
            sets.append(
                DatasetSpec(
                    f"wikitext{size}{raw.replace('-', '_')}",
                    "wikitext",
                    config,
                    DATASETS[f"wikitext/{config}"].version,
                    read_wikitext,
                    _named((), tuple(dict.fromkeys(folders)), splits),
                    "text",
                )
            )
    return sets
