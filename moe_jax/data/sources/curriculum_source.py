"""A seqio source of a task's examples in the curriculum order of `moe-jax data score`.

The directory of scores holds `about.json` with the data that were scored, and `order.npy`. The
source yields the examples in this order, so it can be the source of any seqio task; a run reads it
as the task `curriculum:DIRECTORY`, without shuffling.
"""

import dataclasses
import hashlib
import json

import numpy as np
import seqio
import tensorflow as tf
from etils import epath

from moe_jax.data.config import DataConfig
from moe_jax.data.sources.user_files import files_digest
from moe_jax.errors import UserError

ABOUT, ORDER = "about.json", "order.npy"
# Fields of the configuration that the examples depend on.
_DATA = ("task", "sequence_length", "vocabulary", "objective", "pack", "seed", "targets_length")


def describe_scored_data(config: DataConfig) -> dict[str, object]:
    """Returns the description of the data in a directory of scores."""
    values = dataclasses.asdict(config)
    data = {name: values[name] for name in _DATA}
    return {"data": data, "files": files_digest(config.rates)}


def scored_config(directory: str, config: DataConfig) -> DataConfig:
    """Returns the configuration that was scored, with the directories and batch of `config`.

    Raises:
        UserError: if it is no directory of scores, rows of another length are asked for, or the
            files have changed since they were scored.
    """
    path = epath.Path(directory).expanduser() / ABOUT
    if not path.exists() or not (path.parent / ORDER).exists():
        raise UserError(
            f"{directory} has no complete scores ({ABOUT}, {ORDER}); make them with "
            "`moe-jax data score --checkpoint=RUN --output_dir=DIR`"
        )
    about = json.loads(path.read_text())
    data = about["data"]
    if not isinstance(data["task"], str):
        data["task"] = tuple(map(tuple, data["task"]))
    if data["sequence_length"] != config.sequence_length:
        raise UserError(
            f"the rows scored in {directory} have {data['sequence_length']} tokens; set "
            f"Data.sequence_length to it (it is {config.sequence_length})"
        )
    if data["pack"] and data["objective"] != "lm":
        raise UserError(f"the rows scored in {directory} hold several examples each")
    scored = dataclasses.replace(config, **data)
    if about.get("files") != files_digest(scored.rates):
        raise UserError(
            f"the files of {scored.task_name} are not those that were scored in {directory}; score "
            "them again, with `moe-jax data score`"
        )
    return scored


def order_digest(directory: str) -> str:
    """Returns a digest of the order in a directory of scores."""
    order = (epath.Path(directory).expanduser() / ORDER).read_bytes()
    return hashlib.sha256(order).hexdigest()


def curriculum_source(
    directory: str, provider: seqio.Task, lengths: dict[str, int], random_seed: int
) -> seqio.DataSource:
    """Returns the training examples of a task in the order of a directory of scores.

    Args:
        directory: directory with `order.npy`.
        provider: the task that was scored.
        lengths: lengths of its features when they were scored.
        random_seed: seed of its random preprocessing.
    """
    order = np.load((epath.Path(directory).expanduser() / ORDER).open("rb"), allow_pickle=False)

    def dataset(split: str, shuffle_files: bool, seed: int | None = None) -> tf.data.Dataset:
        del shuffle_files, seed
        examples = provider.get_dataset(lengths, split, shuffle=False, seed=random_seed)
        if split != "train":
            return examples.map(_only(lengths))
        rows = list(examples.map(_only(lengths)).as_numpy_iterator())
        if len(rows) != len(order):
            raise UserError(
                f"{directory} orders {len(order)} rows, and {provider.name} has {len(rows)}"
            )
        features = {
            name: tf.ragged.constant([rows[index][name] for index in order], tf.int32)
            for name in lengths
        }
        slices = tf.data.Dataset.from_tensor_slices(features)
        return slices.map(lambda example: {n: tf.convert_to_tensor(v) for n, v in example.items()})

    return seqio.FunctionDataSource(dataset, splits=list(provider.splits))


def _only(names: dict[str, int]) -> object:
    return lambda example: {name: tf.cast(example[name], tf.int32) for name in names}
