"""The report on a prepared data set, and its differences from the published one."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from moe_jax.data.dataset_info import DATASETS
from moe_jax.data.prepare.dataset_spec import DatasetSpec
from moe_jax.data.prepare.row_reader import DataFile


@dataclasses.dataclass
class PreparedSplit:
    """A split that was written.

    Attributes:
        files: files that it was read from.
        rows: number of examples written.
        labels: how many examples have each label; "hidden" counts those that are not given.
        published: published number of examples, if known.
    """

    files: list[DataFile]
    rows: int = 0
    labels: dict[str, int] = dataclasses.field(default_factory=dict)
    published: int | None = None


@dataclasses.dataclass
class PreparedDataset:
    """A data set that was written.

    Attributes:
        directory: its directory, such as DATA_DIR/glue/sst2/2.0.0.
        splits: by name.
        notes: notes for the user, one line each.
    """

    directory: Path
    splits: dict[str, PreparedSplit]
    notes: list[str]


def published_splits(spec: DatasetSpec) -> Mapping[str, int]:
    """Returns the published number of examples of each split; empty for a user's own data."""
    return DATASETS[spec.title].splits if spec.title in DATASETS else {}


def differences(spec: DatasetSpec, splits: dict[str, PreparedSplit], empty: list[str]) -> list[str]:
    """Returns the differences from the published data set, and skipped rows, one line each.

    Args:
        spec: the data set.
        splits: splits that were written.
        empty: names of splits whose files have no row.
    """
    notes = []
    for name, split in splits.items():
        if split.published not in (None, split.rows):
            difference = split.rows - (split.published or 0)
            notes.append(
                f"{name}: {split.rows:,} rows, published are {split.published:,} ({difference:+,})"
            )
        for file in split.files:
            if file.malformed:
                notes.append(
                    f"{name}: {file.malformed:,} malformed rows of {file.total:,} skipped: "
                    + "; ".join(file.errors)
                )
    for name in published_splits(spec):
        if name not in splits and name not in empty:
            notes.append(f"{name}: no file, so the split is left out")
    return notes
