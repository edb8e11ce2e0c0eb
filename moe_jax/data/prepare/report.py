"""What a prepared data set has in it, and where that differs from the published one."""

import dataclasses
from pathlib import Path

from moe_jax.data.dataset_info import ROWS
from moe_jax.data.prepare.dataset_spec import DatasetSpec
from moe_jax.data.prepare.row_reader import DataFile


@dataclasses.dataclass
class PreparedSplit:
    """What was written of a split.

    Attributes:
        files: that it was read from.
        rows: examples written.
        labels: how many examples have each label; "hidden" counts those that are not given.
        published: the number of rows that the split is published with, if known.
    """

    files: list[DataFile]
    rows: int = 0
    labels: dict[str, int] = dataclasses.field(default_factory=dict)
    published: int | None = None


@dataclasses.dataclass
class PreparedDataset:
    """A data set that was written.

    Attributes:
        directory: where, such as DATA_DIR/glue/sst2/2.0.0.
        splits: by name.
        notes: what the user should know, one line each.
    """

    directory: Path
    splits: dict[str, PreparedSplit]
    notes: list[str]


def differences(
    data_set: DatasetSpec, splits: dict[str, PreparedSplit], empty: list[str]
) -> list[str]:
    """Returns what differs from the published data set, and what was skipped, one line each.

    Args:
        data_set: which.
        splits: those that were written.
        empty: names of those whose files have no row.
    """
    notes = []
    for name, split in splits.items():
        if split.published not in (None, split.rows):
            difference = split.rows - (split.published or 0)
            notes.append(
                f"{name}: {split.rows:,} rows, published are {split.published:,} ({difference:+,})"
            )
        for file in split.files:
            if file.bad:
                notes.append(
                    f"{name}: {file.bad:,} malformed rows of {file.total:,} skipped: "
                    + "; ".join(file.shown)
                )
    for name in ROWS.get(data_set.title, {}):
        if name not in splits and name not in empty:
            notes.append(f"{name}: no file, so the split is left out")
    return notes
