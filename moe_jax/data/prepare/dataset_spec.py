"""What a data set that can be prepared is described by."""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

from moe_jax.data.prepare.file_layout import SplitFiles
from moe_jax.data.prepare.row_reader import DataFile, KeyedExample

Reader = Callable[[DataFile, str], Iterator[KeyedExample]]


@dataclasses.dataclass(frozen=True)
class DatasetSpec:
    """A data set that can be prepared.

    Attributes:
        name: what the user calls it.
        builder: TFDS's name of the builder.
        config: of the builder, or empty.
        version: of the builder.
        read: reads a file of a split.
        find: finds the files in a folder.
        kind: whose features: "official" for those of TFDS's builder, or "text", "dialogues", "c4".
    """

    name: str
    builder: str
    config: str
    version: str
    read: Reader
    find: Callable[[Path], SplitFiles]
    kind: str = "official"

    @property
    def title(self) -> str:
        """Builder and config as in "glue/sst2"."""
        return f"{self.builder}/{self.config}" if self.config else self.builder
