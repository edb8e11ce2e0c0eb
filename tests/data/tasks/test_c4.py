"""C4 through TensorFlow Datasets, from a tiny directory prepared without network."""

import gzip
import json

import numpy as np
import pytest

from moe_jax.data.config import DataConfig
from moe_jax.data.pipeline.input_pipeline import TrainBatches, eval_batches, vocabulary_of
from moe_jax.data.prepare.dataset_lookup import find_dataset_spec
from moe_jax.data.prepare.prepare_dataset import prepare_dataset
from moe_jax.data.sources.embedded_corpus import embedded_documents
from moe_jax.errors import UserError

TEXTS = {
    "train": embedded_documents("train")[:8],
    "validation": embedded_documents("validation")[:3],
}


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """Prepares `c4/en` from files in the form that C4 is published in."""
    source, home = tmp_path_factory.mktemp("files"), tmp_path_factory.mktemp("tfds")
    for split, texts in TEXTS.items():
        lines = [json.dumps({"text": t, "url": "", "timestamp": ""}) for t in texts]
        with gzip.open(source / f"c4-{split}.00000-of-00001.json.gz", "wt") as file:
            file.write("\n".join(lines) + "\n")
    prepare_dataset(find_dataset_spec("c4"), source, home)
    return str(home)


def test_c4_has_the_interface_of_every_task(directory):
    config = DataConfig(task="c4", sequence_length=64, batch_size=4, tfds_data_dir=directory)
    batch = next(TrainBatches(config))
    assert batch.targets_BS.shape == (4, 64)
    held = np.concatenate([b.targets_BS[b.weights_BS > 0] for b in eval_batches(config)])
    texts = vocabulary_of(config).decode([int(t) for t in held if t > 1])
    # TFDS has an order of its own.
    assert sorted(texts) == sorted("".join(TEXTS["validation"]))


def test_a_directory_without_c4_is_one_line(tmp_path):
    config = DataConfig(task="c4", sequence_length=64, batch_size=4, tfds_data_dir=str(tmp_path))
    with pytest.raises(
        UserError, match=r"no prepared c4/en:3.0.1 in .*Data.tfds_data_dir"
    ) as error:
        eval_batches(config)
    assert "\n" not in str(error.value)
