"""Looks up a data set by the name on the command line."""

import functools
import re

from moe_jax.data.prepare.dataset_spec import DatasetSpec, Reader
from moe_jax.data.prepare.known_datasets import known_datasets
from moe_jax.data.prepare.split_words import find_by_word, find_or_hold_out
from moe_jax.data.prepare.text_readers import read_dialogues, read_field, read_text
from moe_jax.errors import UserError, nearest

# Kinds of a user's own data, named KIND:NAME.
USER_DATA_KINDS = ("text", "jsonl", "dialogues")


def find_dataset_spec(name: str) -> DatasetSpec:
    """Returns a data set by its name, TFDS's name (glue/sst2) or KIND:NAME for a user's own data.

    Raises:
        UserError: for an unknown name, with the nearest one.
    """
    if ":" in name and name.split(":")[0] in USER_DATA_KINDS:
        return _user_data(*name.split(":"))
    sets = known_datasets()
    name = name.split(":")[0]
    titles = {spec.title: spec for spec in sets.values()}
    for names in (sets, titles):
        if name in names:
            return names[name]
    for names in (sets, titles):
        for other, spec in names.items():
            if _normalize(other) == _normalize(name):
                return spec
    listed = [*sets, *(f"{kind}:NAME" for kind in USER_DATA_KINDS)]
    raise UserError(
        f"unknown data set {name!r}; known: {', '.join(listed)}." + nearest(name, listed)
    )


def _normalize(name: str) -> str:
    return re.sub("[^a-z0-9]", "", name.lower())


def _user_data(kind: str, name: str = "", field: str = "text", *more: str) -> DatasetSpec:
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or more or (kind != "jsonl" and field != "text"):
        raise UserError(
            f"{':'.join((kind, name, *more))!r} is not a name: {kind}:NAME was expected, with NAME "
            "of small letters, digits and _" + (", or jsonl:NAME:FIELD" if kind == "jsonl" else "")
        )
    if name in {spec.builder for spec in known_datasets().values()}:
        raise UserError(f"{name!r} is the name of a known data set: choose another")
    if kind == "dialogues":
        find = functools.partial(find_by_word, endings=(".jsonl",), anywhere=True)
        read: Reader = functools.partial(read_dialogues, narrative=False)
        return DatasetSpec(name, name, "dialogues", "1.0.0", read, find, "dialogues")
    if kind == "text":
        # Titles of books have words in them: only the first counts.
        find = functools.partial(find_or_hold_out, endings=(".txt",))
        return DatasetSpec(name, name, "", "1.0.0", read_text, find, "text")
    find = functools.partial(find_or_hold_out, endings=(".jsonl", ".json"), anywhere=True)
    read = functools.partial(read_field, field=field)
    return DatasetSpec(name, name, "", "1.0.0", read, find, "text")
