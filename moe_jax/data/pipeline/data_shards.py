"""Which data shards and processes the rows of a batch belong to, without TensorFlow.

Shard i of `Data.shards` has rows [i * B / shards, (i + 1) * B / shards) of each batch.
"""

from collections.abc import Mapping

from moe_jax.data.config import DataConfig


def shards_of_rows(config: DataConfig, rows: tuple[int, int]) -> range:
    """Returns the shards that contain rows [first, last) of a batch."""
    size = config.batch_size // config.shards
    return range(rows[0] // size, -(-rows[1] // size))


def checkpoint_writers(
    config: DataConfig, rows_of_process: Mapping[int, tuple[int, int]]
) -> dict[int, int]:
    """Returns for each shard the lowest process that reads it, which saves its state.

    Args:
        config: configuration of the data.
        rows_of_process: rows of the batch that each process reads.
    """
    writers: dict[int, int] = {}
    for process, rows in sorted(rows_of_process.items(), reverse=True):
        writers.update(dict.fromkeys(shards_of_rows(config, rows), process))
    return writers
