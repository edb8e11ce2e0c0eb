"""A seqio source of documents from a user's files, whose files are distributed over data shards.

| files                | document                                                               |
|----------------------|------------------------------------------------------------------------|
| text                 | `LINES_PER_DOCUMENT` lines                                             |
| JSON, TFRecord       | the text of an object, or of a tf.train.Example                        |

A document is split into pieces of bounded size, and each piece is training or validation data
(moe_jax.data.sources.holdout_split).
"""

import functools
import os
from collections.abc import Callable, Sequence
from typing import Any

import seqio
import tensorflow as tf

from moe_jax.data.sources.file_discovery import SourceFile, SourceFiles
from moe_jax.data.sources.file_inspection import parse_texts
from moe_jax.data.sources.holdout_split import HoldoutSplit, compute_split, fingerprints_and_sizes
from moe_jax.data.sources.plain_text import LINES_PER_DOCUMENT

SPLITS = ("train", "validation")
# Files that are interleaved, and consecutive pieces of each.
_CYCLE_LENGTH, _BLOCK_LENGTH = 8, 16
# Records that are parsed at once.
_RECORDS = 16
# A piece ends at the end of a line, or else of a word, within these last bytes.
_BACK = 512


class DocumentSource(seqio.DataSource):
    """The pieces of the documents of files.

    The files are read by index: TensorFlow expands no name as a pattern, and iterator checkpoints
    hold no names.

    Args:
        files: the files.
        split: the pieces that are held out as `validation`.
    """

    def __init__(self, files: tuple[SourceFile, ...], split: HoldoutSplit):
        self._files, self._split = files, split
        super().__init__(SPLITS)

    @property
    def supports_arbitrary_sharding(self) -> bool:
        """False: a shard reads whole files, or all of them and keeps its part."""
        return False

    def list_shards(self, split: str) -> Sequence[str]:
        """Returns the names of the files, which are the same for both splits."""
        return [file.name for file in self._files]

    def get_dataset(
        self,
        split: str = "train",
        shuffle: bool = True,
        seed: int | None = None,
        shard_info: seqio.ShardInfo | None = None,
        **unused: Any,
    ) -> tf.data.Dataset:
        """Returns the pieces of a split, {"text": string}, as `seqio.FileDataSource` does."""
        numbers = tf.data.Dataset.range(len(self._files))
        if shard_info is not None:
            numbers = numbers.shard(shard_info.num_shards, shard_info.index)
        if shuffle:
            numbers = numbers.shuffle(len(self._files), seed=seed)

        def of_split(pieces: tf.Tensor) -> dict[str, tf.Tensor]:
            held_out = self._split.holds_out(pieces)
            wanted = held_out if split == "validation" else tf.logical_not(held_out)
            return {"text": tf.boolean_mask(pieces, wanted)}

        return _read(numbers, self._files, self._split.piece_bytes, of_split)


def find_holdout_split(found: SourceFiles) -> HoldoutSplit:
    """Returns the split of files, for which a small corpus is read again."""
    numbers = tf.data.Dataset.range(len(found.files))
    return compute_split(
        found, lambda size: _read(numbers, found.files, size, fingerprints_and_sizes)
    )


def _read(
    numbers: tf.data.Dataset,
    files: tuple[SourceFile, ...],
    piece_bytes: int,
    use: Callable[[tf.Tensor], Any],
) -> tf.data.Dataset:
    """Returns the pieces of files, interleaved.

    Args:
        numbers: indices of the files that are read.
        files: lines of text, or records with their texts in the same field.
        piece_bytes: approximate maximum size of a piece.
        use: from the pieces of a document, [N] string, to the elements, [M, ...].
    """
    paths = tf.constant([os.fsencode(file.path) for file in files])
    packings = tf.constant(["GZIP" if file.packed else "" for file in files])
    marks = tf.constant([file.mark for file in files])
    are_lines = tf.constant([file.field is None for file in files])
    fields = [file.field for file in files if file.field is not None]

    def read(number: tf.Tensor) -> tf.data.Dataset:
        path, packing, is_lines = [paths[number]], packings[number], [are_lines[number]]
        kinds = []
        if len(fields) < len(files):
            lines = tf.data.TextLineDataset(tf.boolean_mask(path, is_lines), packing)
            if any(file.mark for file in files):
                lines = _without_mark(lines, marks[number])
            runs = lines.batch(LINES_PER_DOCUMENT)
            kinds.append(runs.map(lambda run: use(_pieces(_document(run), piece_bytes))))
        if fields:
            others = tf.boolean_mask(path, tf.logical_not(is_lines))
            records = tf.data.TFRecordDataset(others, packing).batch(_RECORDS)
            kinds.append(
                records.map(lambda r: use(_pieces(parse_texts(r, fields[0]), piece_bytes)))
            )
        return functools.reduce(lambda one, other: one.concatenate(other), kinds).unbatch()

    return numbers.interleave(
        read,
        cycle_length=_CYCLE_LENGTH,
        block_length=_BLOCK_LENGTH,
        num_parallel_calls=tf.data.AUTOTUNE,
    )


def _document(run: tf.Tensor) -> tf.Tensor:
    return tf.strings.reduce_join(run, separator="\n", keepdims=True) + "\n"


def _without_mark(lines: tf.data.Dataset, mark: tf.Tensor) -> tf.data.Dataset:
    """Drops the byte-order mark from the first line if there is one."""

    def without(line: tf.Tensor) -> tf.Tensor:
        return tf.where(mark, tf.strings.regex_replace(line, "^\ufeff", ""), line)

    return lines.take(1).map(without).concatenate(lines.skip(1))


def _pieces(documents: tf.Tensor, piece_bytes: int) -> tf.Tensor:
    """Splits texts into pieces of about equal sizes, between lines, words or characters.

    Args:
        documents: [D] string.
        piece_bytes: approximate maximum size of a piece.

    Returns:
        [N] string.
    """

    def cut_each() -> tf.Tensor:
        many = tf.RaggedTensorSpec([None], tf.string)
        cut = functools.partial(_cut, piece_bytes=piece_bytes)
        return tf.map_fn(cut, documents, fn_output_signature=many).values

    short = tf.reduce_all(tf.strings.length(documents) <= piece_bytes)
    return tf.cond(short, lambda: documents, cut_each)


def _cut(text: tf.Tensor, piece_bytes: int) -> tf.Tensor:
    """Returns the pieces of a text, [N] string, of about equal sizes."""
    size = tf.strings.length(text)
    count = tf.maximum(-(-size // piece_bytes), 1)
    each = -(-size // count)

    def bound(index: tf.Tensor) -> tf.Tensor:
        """Returns the start of a piece: at a multiple of the size or a little before it."""
        place = tf.minimum(index * each, size)
        # Pieces that end early by less than half do not become empty or much longer than others.
        back = tf.minimum(place, tf.minimum(each // 2, _BACK))
        around = tf.io.decode_raw(tf.strings.substr(text, place - back, back + 1), tf.uint8)
        around = around[: back + 1]
        # Bytes 10xxxxxx continue a character.
        starts = tf.not_equal(tf.bitwise.bitwise_and(around, 0xC0), 0x80)
        ends = tf.concat([[0], around[:-1]], axis=0)  # The byte before each.
        lines = tf.equal(ends, ord("\n"))
        words = tf.logical_or(lines, tf.equal(ends, ord(" ")))
        best = tf.where(tf.reduce_any(words), words, starts)
        best = tf.where(tf.reduce_any(lines), lines, best)
        return tf.where(place >= size, size, place - back + _last(best))

    def piece(index: tf.Tensor) -> tf.Tensor:
        start, end = bound(index), bound(index + 1)
        return tf.strings.substr(text, start, end - start)

    return tf.map_fn(piece, tf.range(count), fn_output_signature=tf.string)


def _last(true: tf.Tensor) -> tf.Tensor:
    """Returns the last index that is true, 0 if none is, [] int32."""
    places = tf.cast(tf.where(true)[:, 0], tf.int32)
    return tf.reduce_max(tf.concat([places, [0]], axis=0))
