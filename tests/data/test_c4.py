"""C4 through TensorFlow Datasets, from a tiny directory prepared without network."""

import numpy as np
import pytest
import tensorflow_datasets as tfds

from moe_jax.data.config import DataConfig
from moe_jax.data.corpus import embedded_documents
from moe_jax.data.pipeline import TrainBatches, eval_batches, vocabulary_of
from moe_jax.errors import UserError

C4_VERSION = "3.0.1"
TEXTS = {
    "train": embedded_documents("train")[:8],
    "validation": embedded_documents("validation")[:3],
}


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """Prepares a data set `c4/en` with C4's own features: content type, length, text, time, url."""
    home = tmp_path_factory.mktemp("tfds")
    feature = tfds.features.Text()
    names = ("content-length", "content-type", "text", "timestamp", "url")

    class C4(tfds.core.GeneratorBasedBuilder):
        """A stand-in with C4's name, version and features."""

        name = "c4"
        VERSION = tfds.core.Version(C4_VERSION)
        BUILDER_CONFIGS = (tfds.core.BuilderConfig(name="en", version=C4_VERSION),)

        def _info(self):
            features = tfds.features.FeaturesDict(dict.fromkeys(names, feature))
            return tfds.core.DatasetInfo(builder=self, features=features)

        def _split_generators(self, dl_manager):
            return {split: self._rows(texts) for split, texts in TEXTS.items()}

        def _generate_examples(self):
            raise AssertionError("not used")

        def _rows(self, texts):
            for index, text in enumerate(texts):
                yield index, {**dict.fromkeys(names, ""), "text": text}

    C4(config="en", data_dir=home).download_and_prepare()
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
