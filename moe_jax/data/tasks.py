"""The seqio tasks that ship with the package.

| name        | what it is                                                                   |
|-------------|------------------------------------------------------------------------------|
| `embedded`  | the English corpus in the package (moe_jax/data/embedded/SOURCES.md)         |
| `c4`        | C4, English, from a TensorFlow Datasets directory (`c4/en`)                  |
| `text:GLOB` | your own UTF-8 text files, such as `text:/home/me/books/*.txt`               |

Any other task that is registered with seqio can be named too.
"""

import functools
import gzip
import importlib.resources
import json
import os
from importlib.resources.abc import Traversable

import seqio
import tensorflow as tf
from etils import epath

from moe_jax.data.files import find_text_files, text_documents
from moe_jax.data.preprocessors import concatenate_and_split, keep_targets
from moe_jax.errors import UserError, nearest

TEXT_PREFIX = "text:"
C4_VERSION = "3.0.1"
# T5's sentinel tokens, for span corruption.
EXTRA_IDS = 100


def embedded_file(name: str) -> Traversable:
    """Returns a file of the corpus in the package."""
    return importlib.resources.files("moe_jax") / "data" / "embedded" / name


def load_vocabulary(path: str) -> seqio.SentencePieceVocabulary:
    """Returns the SentencePiece vocabulary at `path`, or the package's own for "embedded".

    Raises:
        UserError: if there is no such file or it is not a SentencePiece model.
    """
    if path == "embedded":
        path = str(embedded_file("vocabulary.model"))
    elif not tf.io.gfile.exists(path):
        raise UserError(f"there is no vocabulary {path}; a SentencePiece .model was expected")
    vocabulary = seqio.SentencePieceVocabulary(path, extra_ids=EXTRA_IDS)
    try:
        _ = vocabulary.vocab_size
    except Exception as error:
        raise UserError(f"{path} is not a SentencePiece model: {error}") from None
    return vocabulary


def embedded_documents(split: str) -> list[str]:
    """Returns the documents of a split of the corpus in the package."""
    with embedded_file(f"{split}.jsonl.gz").open("rb") as file:
        lines = gzip.decompress(file.read()).decode("utf-8").splitlines()
    return [json.loads(line)["text"] for line in lines]


def _embedded_dataset(split: str, shuffle_files: bool, seed: int | None = None) -> tf.data.Dataset:
    documents = embedded_documents(split)
    dataset = tf.data.Dataset.from_tensor_slices({"targets": documents})
    return dataset.shuffle(len(documents), seed=seed) if shuffle_files else dataset


def _text_dataset(
    split: str, shuffle_files: bool, seed: int | None = None, *, paths: tuple[str, ...]
) -> tf.data.Dataset:
    dataset = text_documents(list(paths), split)
    return dataset.shuffle(10_000, seed=seed) if shuffle_files else dataset


def _source(name: str, tfds_data_dir: str | None) -> seqio.DataSource:
    splits = ["train", "validation"]
    if name == "embedded":
        return seqio.FunctionDataSource(_embedded_dataset, splits=splits)
    if name == "c4":
        return _prepared(f"c4/en:{C4_VERSION}", tfds_data_dir, splits)
    paths = tuple(find_text_files(name.removeprefix(TEXT_PREFIX)))
    return seqio.FunctionDataSource(functools.partial(_text_dataset, paths=paths), splits=splits)


def _prepared(name: str, tfds_data_dir: str | None, splits: list[str]) -> seqio.DataSource:
    """Returns a data set that TensorFlow Datasets has prepared; nothing is ever downloaded."""
    home = tfds_data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    directory = epath.Path(home).expanduser()
    if not (directory / name.replace(":", "/")).exists():
        raise UserError(
            f"there is no prepared {name} in {directory}; set Data.tfds_data_dir to the directory "
            "that TensorFlow Datasets prepared it in (local or gs://)"
        )
    return seqio.TfdsDataSource(name, tfds_data_dir=str(directory), splits=splits, read_only=True)


def get_task(name: str, vocabulary_path: str, tfds_data_dir: str | None) -> str:
    """Makes sure that a task is registered with seqio and returns its seqio name.

    Raises:
        UserError: for a name that neither this package nor seqio knows.
    """
    if name not in ("embedded", "c4") and not name.startswith(TEXT_PREFIX):
        known = sorted(
            {"embedded", "c4", *seqio.TaskRegistry.names(), *seqio.MixtureRegistry.names()}
        )
        if name in known:
            return name
        raise UserError(
            f"unknown task {name!r}; known: {', '.join(known)}, or text:FILES for your own "
            "text files." + nearest(name, known)
        )
    registered = _identifier("_".join((name, vocabulary_path, tfds_data_dir or "")))
    if registered not in seqio.TaskRegistry.names():
        vocabulary = load_vocabulary(vocabulary_path)
        feature = seqio.Feature(vocabulary, add_eos=True, dtype=tf.int32)
        seqio.TaskRegistry.add(
            registered,
            source=_source(name, tfds_data_dir),
            preprocessors=[
                keep_targets,
                seqio.preprocessors.tokenize,
                seqio.preprocessors.append_eos,
                concatenate_and_split,
            ],
            output_features={"targets": feature},
            metric_fns=[],
        )
    return registered


def _identifier(text: str) -> str:
    """Returns `text` as a valid seqio task name."""
    return "".join(c if c.isalnum() else "_" for c in text)
