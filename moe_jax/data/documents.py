"""Documents from a user's own files, as seqio sources whose files are dealt to streams.

| files                | a document is                                                          |
|----------------------|------------------------------------------------------------------------|
| text                 | a run of `LINES_PER_DOCUMENT` lines, cut every `PIECE_BYTES` bytes      |
| TFRecord             | the text field of a tf.train.Example                                   |

Every `HELD_OUT_EVERY`-th document is validation data, the others are training data: of file f (in
the order of the names, from 0) the documents i with (f + i) divisible by it. So even a few small
files have some of both.
"""

import functools
from collections.abc import Callable

import seqio
import tensorflow as tf
from google.protobuf.message import DecodeError

from moe_jax.errors import UserError

LINES_PER_DOCUMENT = 64
# Longer documents (from lines without an end) are cut: tokenising takes memory by length.
PIECE_BYTES = 1 << 16
HELD_OUT_EVERY = 20
SPLITS = ("train", "validation")

# From the name of a file, as a tensor, to its documents {"text": string}.
ReadFile = Callable[[tf.Tensor], tf.data.Dataset]


class DocumentSource(seqio.FileDataSource):
    """The documents of files, every `HELD_OUT_EVERY`-th of them held out as `validation`."""

    def __init__(self, read: ReadFile, paths: tuple[str, ...]):
        self._read = read
        super().__init__(read, dict.fromkeys(SPLITS, paths), cycle_length=8, block_length=16)

    def list_shards(self, split: str) -> tuple[str, ...]:
        """Returns the files, which are those of both splits."""
        files: tuple[str, ...] = self._split_to_filepattern[split]
        return files

    def get_dataset(self, split: str = "train", *args: object, **kwargs: object) -> tf.data.Dataset:
        """Returns the documents of a split, as `seqio.FileDataSource.get_dataset`."""
        # The parent reads with the same function whatever the split.
        of_split = seqio.FileDataSource(
            functools.partial(_of_split, self._read, split, self.list_shards(split)),
            self._split_to_filepattern,
            cycle_length=self._cycle_length,
            block_length=self._block_length,
        )
        return of_split.get_dataset(split, *args, **kwargs)


def _of_split(
    read: ReadFile, split: str, paths: tuple[str, ...], path: tf.Tensor
) -> tf.data.Dataset:
    number = tf.argmax(tf.cast(tf.equal(tf.constant(paths), path), tf.int32))

    def wanted(index: tf.Tensor, example: dict[str, tf.Tensor]) -> tf.Tensor:
        del example
        held_out = tf.equal((index + number) % HELD_OUT_EVERY, 0)
        return held_out if split == "validation" else tf.logical_not(held_out)

    return read(path).enumerate().filter(wanted).map(lambda _, example: example).flat_map(_pieces)


def text_source(paths: tuple[str, ...]) -> seqio.DataSource:
    """Returns the documents of files of text, plain or gzipped."""

    def read(path: tf.Tensor) -> tf.data.Dataset:
        lines = tf.data.TextLineDataset(path, compression_type=_compression(path))
        runs = lines.batch(LINES_PER_DOCUMENT)
        return runs.map(lambda run: {"text": tf.strings.reduce_join(run, separator="\n") + "\n"})

    return DocumentSource(read, paths)


def tfrecord_source(paths: tuple[str, ...], field: str) -> seqio.DataSource:
    """Returns the documents of TFRecord files of tf.train.Example, plain or gzipped.

    Args:
        paths: the files.
        field: the feature with the text.

    Raises:
        UserError: if the first record of the first file has no such text.
    """
    _check_field(paths[0], field)

    def read(path: tf.Tensor) -> tf.data.Dataset:
        records = tf.data.TFRecordDataset(path, compression_type=_compression(path))
        features = {field: tf.io.FixedLenFeature([], tf.string)}
        return records.map(lambda r: {"text": tf.io.parse_single_example(r, features)[field]})

    return DocumentSource(read, paths)


def _check_field(path: str, field: str) -> None:
    try:
        records = tf.data.TFRecordDataset(path, compression_type=_compression(tf.constant(path)))
        first = next(records.take(1).as_numpy_iterator(), None)
        features = tf.train.Example.FromString(first or b"").features.feature
    except (tf.errors.OpError, DecodeError) as error:
        raise UserError(f"{path} is no TFRecord file of tf.train.Example: {error}") from None
    if first is not None and not features[field].bytes_list.value:
        known = ", ".join(sorted(name for name in features if name != field)[:8])
        raise UserError(
            f"{path} has no text in the field {field!r}; it has: {known}. Name the field after a "
            "#, such as tfrecord:FILES#content"
        )


def _compression(path: tf.Tensor) -> tf.Tensor:
    return tf.where(tf.strings.regex_full_match(path, r".*\.gz"), "GZIP", "")


def _pieces(example: dict[str, tf.Tensor]) -> tf.data.Dataset:
    """Cuts a text every `PIECE_BYTES` bytes, never within a character."""
    text = example["text"]
    size = tf.strings.length(text)
    count = tf.maximum(-(-size // PIECE_BYTES), 1)

    def bound(index: tf.Tensor) -> tf.Tensor:
        """Returns where a piece starts: at most 3 bytes before a multiple of the size."""
        place = tf.minimum(index * PIECE_BYTES, size)
        back = tf.minimum(place, 3)
        around = tf.io.decode_raw(tf.strings.substr(text, place - back, back + 1), tf.uint8)
        around = around[: back + 1]
        # Bytes 10xxxxxx go on with a character.
        inside = tf.equal(tf.bitwise.bitwise_and(around, 0xC0), 0x80)
        starts = tf.where(tf.logical_not(inside))[:, 0]
        last = tf.cast(tf.reduce_max(tf.concat([starts, [0]], axis=0)), tf.int32)
        return tf.where(place >= size, size, place - back + last)

    def piece(index: tf.Tensor) -> dict[str, tf.Tensor]:
        start, end = bound(index), bound(index + 1)
        return {"text": tf.strings.substr(text, start, end - start)}

    return tf.data.Dataset.range(tf.cast(count, tf.int64)).map(
        lambda index: piece(tf.cast(index, tf.int32))
    )
