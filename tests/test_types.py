"""Names and annotations of arrays follow the legend of `moe_jax.types`."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import array_checks
import jax
import jax.numpy as jnp
import pytest
from jaxtyping import TypeCheckError

import moe_jax
from moe_jax import types
from moe_jax.routing.assignment import Slots
from moe_jax.routing.selection import choice_counts

PACKAGES = (
    "models",
    "routing",
    "routers",
    "dispatch",
    "training",
    "evaluation",
    "testing",
    "runs",
)
SUFFIXED = re.compile(r"[a-z0-9_]+_([A-Z][A-Z0-9]*)")


def letters() -> list[str]:
    """Returns the letters of the legend, as often as it gives them a meaning."""
    rows = re.findall(r"^\| ([A-Z](?:, [A-Z])*) +\|", types.__doc__, re.MULTILINE)
    return [letter for row in rows for letter in row.split(", ")]


def identifiers(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        for field in ("id", "arg", "attr", "name"):
            name = getattr(node, field, None)
            if isinstance(name, str):
                yield name


def suffixes() -> dict[str, str]:
    """Returns the suffixes in use, each with a name that has it and the name's file."""
    found = {}
    root = Path(moe_jax.__file__).parent
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            for name in identifiers(ast.parse(path.read_text(encoding="utf-8"))):
                if match := SUFFIXED.fullmatch(name):
                    found.setdefault(match[1], f"{name} in {path.relative_to(root)}")
    return found


def test_suffixes_have_letters_of_the_legend_only():
    known = {*letters(), "1"}
    unknown = {where for suffix, where in suffixes().items() if not set(suffix) <= known}
    assert not unknown


def test_letters_of_the_legend_are_all_in_use():
    assert set(letters()) <= set("".join(suffixes()))


def test_one_letter_has_one_meaning_but_for_k():
    twice = {letter for letter in letters() if letters().count(letter) > 1}
    assert twice == {"K"}


def test_aliases_are_named_after_their_dimensions():
    for name, alias in vars(types).items():
        dimensions = getattr(alias, "dim_str", "").replace(" ", "")
        assert name.endswith(dimensions)


def slots(filled: tuple[int, int, int]) -> Slots:
    shape = (1, 2, 3)
    return Slots(jnp.zeros(shape, jnp.int32), jnp.zeros(shape), jnp.ones(filled, jnp.bool_))


@pytest.mark.skipif(not array_checks.ENABLED, reason="array annotations are not checked")
def test_other_shapes_are_errors_in_tests():
    expert_PNK = jnp.zeros((1, 4, 2), jnp.int32)
    with pytest.raises(TypeCheckError, match="wanted_PNK"):
        choice_counts(expert_PNK, jnp.ones((1, 4, 3), jnp.bool_), 8)
    with pytest.raises(TypeCheckError, match="wanted_PNK"):
        choice_counts(expert_PNK, expert_PNK, 8)
    with pytest.raises(TypeCheckError, match="filled_PEC"):
        slots((1, 2, 4))


def test_dataclasses_that_jax_makes_may_have_other_leaves():
    stacked = jax.vmap(lambda slots: slots)(jax.tree.map(lambda leaf: leaf[None], slots((1, 2, 3))))
    assert stacked.filled_PEC.shape == (1, 1, 2, 3)
    assert jax.tree.map(lambda leaf: leaf.shape, stacked).filled_PEC == (1, 1, 2, 3)
