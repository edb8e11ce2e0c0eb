"""The specification of a data set that can be prepared."""

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
        name: name on the command line.
        builder: TFDS's name of the builder.
        config: configuration of the builder, or empty.
        version: version of the builder.
        read: reads a file of a split.
        find: finds the files in a folder.
        features: "official" for those of TFDS's builder, or "text", "dialogues", "c4".
    """

    name: str
    builder: str
    config: str
    version: str
    read: Reader
    find: Callable[[Path], SplitFiles]
    features: str = "official"

    @property
    def title(self) -> str:
        """Builder and config as in "glue/sst2"."""
        return f"{self.builder}/{self.config}" if self.config else self.builder
