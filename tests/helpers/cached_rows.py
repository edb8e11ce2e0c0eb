"""Small directories of cached rows."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from moe_jax.data.batch import Batch
from moe_jax.data.config import DataConfig
from moe_jax.data.pipeline.row_cache import RowPlan, cache_rows
from moe_jax.data.pipeline.row_facts import RowFacts


def write_text(path: Path, lines: int = 3000) -> str:
    """Writes a text of its own; returns the task that reads it."""
    text = "\n".join(f"Chapter {i} tells of whale number {i * 7}." for i in range(lines))
    path.write_text(text)
    return f"text:{path}"


def write_rows(
    config: DataConfig, target: Path, **changes: Any
) -> tuple[DataConfig, RowFacts, list[str]]:
    """Caches rows; returns the configuration that reads them, the facts, and what was printed."""
    plan = RowPlan(config, **{"steps": 6, "seeds": (config.seed,), "target": target, **changes})
    lines: list[str] = []
    facts = cache_rows(plan, lines.append, lambda line: None)
    return dataclasses.replace(config, rows_dir=str(target)), facts, lines


def assert_same(found: Batch, expected: Batch) -> None:
    """Two batches are bitwise the same arrays of the same types."""
    for name, wanted in vars(expected).items():
        value = getattr(found, name)
        assert (value is None) == (wanted is None), name
        if wanted is not None:
            assert type(value) is np.ndarray
            assert (value.dtype, value.shape) == (wanted.dtype, wanted.shape), name
            assert value.tobytes() == wanted.tobytes(), name
