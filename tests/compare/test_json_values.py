import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from moe_jax.compare.json_values import decode, encode
from moe_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Point:
    by_rate: Mapping[float, float]
    at: float | None = None


def test_mappings_by_numbers_are_lists_of_pairs():
    point = Point({0.1: math.inf, 1e-3: 2.0})
    values = encode(point)
    assert values == {"by_rate": [[0.1, "inf"], [0.001, 2.0]], "at": None}
    assert decode(values, Point, "x") == point
    assert decode({"by_rate": []}, Point, "x") == Point({})


@pytest.mark.parametrize("pairs", [{}, [1], [[1, 2, 3]], [["a", 1]]])
def test_other_mappings_are_refused(pairs):
    with pytest.raises(UserError, match="x: by_rate must be a"):
        decode({"by_rate": pairs}, Point, "x")


def test_values_of_any_type_keep_their_type():
    value = {"a": (1, [2.0, (math.inf,)], {3: None}), "b": {"$tuple": True}, "c": np.arange(2)}
    plain = encode(value)
    assert plain == {
        "a": {"$tuple": [1, [2.0, {"$tuple": [{"$float": "inf"}]}], {"$map": [[3, None]]}]},
        "b": {"$map": [["$tuple", True]]},
        "c": [0, 1],
    }
    assert decode(plain, Any, "x") == value | {"c": [0, 1]}


@pytest.mark.parametrize("value", [{"$float": "big"}, {"$tuple": 3}, {"$map": [[{}, 1]]}])
def test_wrong_tags_are_refused(value):
    with pytest.raises(UserError, match=r"^x"):
        decode(value, Any, "x")
