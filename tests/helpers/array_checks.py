"""Checks of array annotations at run time: dtype, rank, and equal sizes for equal letters.

jaxtyping's import hook decorates the functions of a package with `checked`. Only annotations with
arrays are checked; mypy checks the others. `MOE_JAX_TESTS_CHECK_ARRAYS=0` turns it off.
"""

import collections.abc
import functools
import inspect
import operator
import os
import sys
import types
from collections.abc import Callable
from typing import Any, get_args, get_origin

import jax
import jaxtyping
import numpy as np
from beartype import beartype

ENABLED = os.environ.get("MOE_JAX_TESTS_CHECK_ARRAYS", "1") != "0"
PACKAGES = ("moe_jax.models", "moe_jax.routing", "moe_jax.routers", "moe_jax.dispatch")


def install() -> None:
    """Has modules of `PACKAGES` checked that are imported from now on."""
    if ENABLED:
        jaxtyping.install_import_hook(list(PACKAGES), "array_checks.checked")


class _Placeholder(type):
    def __instancecheck__(cls, value: Any) -> bool:
        return not isinstance(value, jax.Array | np.ndarray)


class Placeholder(metaclass=_Placeholder):
    """Everything that is no array: a sharding or a shape in the place of one, or None."""


def checked(function: Callable) -> Callable:
    """Returns the function with its array annotations checked, if it has any."""
    annotations = {
        name: _with_numpy(annotation)
        for name, annotation in function.__annotations__.items()
        if _has_array(annotation)
    }
    if not annotations:
        return function
    if function.__name__ != "__init__":
        return _annotated(function, annotations)
    fields = {name: annotation | Placeholder for name, annotation in annotations.items()}
    return _unless_rebuilt(_annotated(function, fields))


def _is_array(annotation: Any) -> bool:
    return inspect.isclass(annotation) and issubclass(annotation, jaxtyping.AbstractArray)


def _has_array(annotation: Any) -> bool:
    # Of what is called, nothing but that it can be called is known.
    if get_origin(annotation) is collections.abc.Callable:
        return False
    return _is_array(annotation) or any(map(_has_array, get_args(annotation)))


def _with_numpy(annotation: Any) -> Any:
    """Returns the annotation with NumPy arrays of the same shape, which JAX takes as well."""
    if _is_array(annotation):
        return annotation | annotation.dtype[np.ndarray, annotation.dim_str]
    if not _has_array(annotation):
        return annotation
    arguments = map(_with_numpy, get_args(annotation))
    if isinstance(annotation, types.UnionType):
        return functools.reduce(operator.or_, arguments)
    return get_origin(annotation)[tuple(arguments)]


def _annotated(function: Callable, annotations: dict[str, Any]) -> Callable:
    function.__annotations__ = annotations
    return beartype(function)


def _unless_rebuilt(init: Callable) -> Callable:
    """Leaves dataclasses alone that JAX makes again: their leaves may be stacked or batched."""

    @functools.wraps(init)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        # The frames of jaxtyping's two wrappers lie between.
        caller = sys._getframe(3).f_globals["__name__"]
        return None if caller.partition(".")[0] == "jax" else init(*args, **kwargs)

    return wrapper
