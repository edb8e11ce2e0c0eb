"""What fits an annotation, and what the line says that does not."""

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np
import pytest

from moe_jax.errors import UserError
from moe_jax.routing.pools import Pool
from moe_jax.settings import (
    Count,
    Decay,
    Name,
    NonNegative,
    Positive,
    PositiveInt,
    Range,
    Seed,
    Settings,
    Share,
    check_annotation,
    checked,
    counted,
)
from moe_jax.settings.values import describe_mismatch, matches

INF, NAN = float("inf"), float("nan")
Choice = Literal["one", "two"]
Tasks = Name | tuple[tuple[Name, Positive], ...] | Mapping[Name, Positive]


@pytest.mark.parametrize(
    ("hint", "right", "wrong"),
    [
        (bool, [True, False], [0, 1, "False", None]),
        (int, [0, -3, np.int64(3)], [True, 1.0, "1", None, INF]),
        (float, [0, 1.5, 2, np.float32(2)], [True, "1", None, INF, -INF, NAN, 1e39, 10**400]),
        (PositiveInt, [1, 2**31 - 1], [0, -1, 2.0, 2**31, True]),
        (Count, [0], [-1, 2**31]),
        (Seed, [-(2**31), 2**32 - 1], [2**32, 1.5]),
        (Positive, [1e-30, 3], [0, -1.0, 1e-60, INF]),
        (NonNegative, [0, 0.0, 1e38], [-1e-9, NAN]),
        (Share, [0, 0.5, 1], [1.001, -0.1]),
        (Decay, [0, 0.999], [1, 1.0, 0.9999999999]),
        (Annotated[float, Range(above=0, most=1)], [1, 0.1], [0, 1.5]),
        (Name, ["x"], ["", "  ", 3, None]),
        (Choice, ["one"], ["three", 1, None, ("one",)]),
        (Choice | None, ["two", None], ["three"]),
        (tuple[Choice, ...], [(), ("one", "two"), ["one"]], ["one", ("three",), None]),
        (tuple[int, str], [(1, "a")], [(1,), (1, 2), (1, "a", 2)]),
        (Sequence[int], [[1], (1, 2)], [1, "1", ["1"]]),
        (Mapping[Name, Positive], [{}, {"a": 1}], [{"a": 0}, {1: 1}, [("a", 1)]]),
        (Tasks, ["c4", (("c4", 1.0),), {"c4": 1}], [3, {"c4": -1}, (("c4",),), ""]),
        (Callable[[int], int], [abs], [3, None, "abs"]),
        (Pool, [Pool()], [None, "batch", Pool]),
        (Any, [None, 3], []),
    ],
    ids=str,
)
def test_what_fits(hint, right, wrong):
    check_annotation(hint)
    assert [matches(hint, value) for value in right] == [True] * len(right)
    assert [matches(hint, value) for value in wrong] == [False] * len(wrong)
    for value in wrong:
        line = describe_mismatch("X.y", hint, value, " (my.gin, line 3)")
        assert line.startswith(("X.y", "a key of X.y"))
        assert "(my.gin, line 3)" in line
        assert "\n" not in line


@pytest.mark.parametrize(
    ("hint", "value", "line"),
    [
        (bool, "false", "X.y must be True or False, not 'false'"),
        (PositiveInt, 2.5, "X.y must be a whole number above 0, not 2.5"),
        (PositiveInt, 1e5, "X.y must be a whole number above 0, not 100000.0 (write 100000)"),
        (PositiveInt, 2**40, "X.y must be a whole number from 1 to 2,147,483,647, not 10995"),
        (Annotated[int, counted("all")], -1, "X.y must be a whole number, 0 (all) or more, not -1"),
        (NonNegative, INF, "X.y must be 0 or more and finite, not inf"),
        (NonNegative, 1e39, "X.y must be 0 or more and at most 3.4e+38 (float32), not 1e+39"),
        (Decay, 1 - 1e-12, "X.y must be in [0, 1), not 0.999999999999 (1 in float32)"),
        (Positive, "x", "X.y must be a number above 0, not 'x'"),
        (
            Annotated[Positive | None, "to drop nothing"],
            0.0,
            "X.y must be above 0, or None to drop nothing, not 0.0",
        ),
        (Choice, "tow", "X.y = 'tow' is unknown; known: one, two. Did you mean 'two'?"),
        (tuple[Choice, ...], ("one", "tow"), "X.y[1] = 'tow' is unknown; known: one, two."),
        (tuple[Choice, ...], "one", "X.y must be a tuple in parentheses, not 'one'"),
        (Tasks, {"c4": -1}, "X.y['c4'] must be above 0, not -1"),
        (Tasks, {3: 1}, "a key of X.y must be a name, not 3"),
        (str, "x" * 200, None),
        (int, "x" * 200, f"X.y must be a whole number, not '{'x' * 56}..."),
    ],
    ids=str,
)
def test_what_the_line_says(hint, value, line):
    found = describe_mismatch("X.y", hint, value)
    assert found == line if line is None else found.startswith(line)


def test_an_annotation_without_a_rule_is_refused():
    for hint in (set[int], Annotated[int, 3], Mapping[str, set[int]]):
        with pytest.raises(TypeError, match="no rule for the annotation"):
            check_annotation(hint)


def test_python_code_is_checked_like_gin_files():
    @checked("Twice")
    def twice(number: PositiveInt, name: Name = "x") -> int:
        return 2 * number

    assert twice(2) == twice(number=2) == 4
    with pytest.raises(UserError) as error:
        twice(0, name="")
    assert str(error.value) == (
        "Twice.number must be a whole number above 0, not 0\nTwice.name must be a name, not ''"
    )
    with pytest.raises(UserError, match=r"^Pool.rows must be .* not True$"):
        Pool(rows=True)
    assert issubclass(Pool, Settings)
