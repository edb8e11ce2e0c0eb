"""The shapes of training batches, without TensorFlow."""

from typing import Any

import jax
import numpy as np

from moe_jax.data.batch import Batch
from moe_jax.data.config import DataConfig
from moe_jax.data.tasks import catalog


def abstract_batch(config: DataConfig, sharding: jax.sharding.Sharding | None) -> Batch | None:
    """Returns the shapes and types of the training batches of plain texts; None for other tasks.

    The step can be compiled for them while the data are being opened. If they differed from those
    of the data, the step would be compiled again.

    Args:
        config: configuration of the data.
        sharding: sharding of the batch over a mesh; None for numpy arrays.
    """
    if not all(_is_plain_text(name) for name in config.rates):
        return None
    shape = (config.batch_size, config.sequence_length)
    tokens: Any = jax.ShapeDtypeStruct(shape, np.int32, sharding=sharding)
    weights: Any = jax.ShapeDtypeStruct(shape, np.float32, sharding=sharding)
    return Batch(
        inputs_BS=tokens,
        targets_BS=tokens,
        weights_BS=weights,
        positions_BS=tokens if config.pack else None,
        segments_BS=tokens if config.pack else None,
        prefix_BS=None if config.objective == "lm" else tokens,
    )


def _is_plain_text(name: str) -> bool:
    own = name.partition(":")[0] in catalog.USER_FILE_KINDS
    return own or name == "embedded" or name in catalog.PLAIN_TEXTS
