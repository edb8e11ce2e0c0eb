"""Sums over the collectives of a program."""

from collections import defaultdict

import numpy as np


def totals(collectives, shape, names):
    """Returns executions and payload bytes in one step, by kind and mesh axes.

    Args:
        collectives: of a program.
        shape: of the mesh.
        names: of its axes.
    """
    mesh = np.arange(np.prod(shape)).reshape(shape)
    found = defaultdict(lambda: np.zeros(2))
    for each in collectives:
        key = (each.kind, each.mesh_axes(mesh, names))
        found[key] += np.array([1, each.payload_bytes]) * each.executions
    return {key: tuple(map(float, row)) for key, row in found.items()}
