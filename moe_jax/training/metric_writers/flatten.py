"""Flatten arrays of metrics to the scalars that a dashboard shows."""

from collections.abc import Mapping

import numpy as np


def flatten_metrics(kind: str, metrics: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Returns the scalars of a record by their full name, such as `train/router/entropy/0`."""
    return {
        f"{kind}/{name}{suffix}": scalar
        for name, value in metrics.items()
        for suffix, scalar in _scalars(value)
    }


def _scalars(value: np.ndarray) -> list[tuple[str, float]]:
    """Returns (suffix of the name, scalar) pairs: one for a scalar, one per layer for an array.

    The first axis of an array counts layers; any further axes are reduced to their maximum.
    """
    if value.ndim == 0:
        return [("", float(value))]
    if value.ndim == 1:
        return [(f"/{layer}", float(item)) for layer, item in enumerate(value)]
    # Vectors per layer, such as the load of every expert: their extremes show a problem.
    return [(f"/{layer}/max", float(row.max())) for layer, row in enumerate(value)]
