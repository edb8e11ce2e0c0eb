"""Documents of a user's files: all of the text, once, in one split, distributed over shards."""

import collections
import gzip
import random

import numpy as np
import pytest
import seqio
import tensorflow as tf
from etils import epath
from tiers import mostly_slow

from moe_jax.data.config import DataConfig
from moe_jax.data.pipeline.input_pipeline import TrainBatches
from moe_jax.data.sources import holdout_split, user_files
from moe_jax.data.sources.embedded_corpus import embedded_documents
from moe_jax.data.sources.file_discovery import find_files
from moe_jax.data.sources.holdout_split import HoldoutSplit
from moe_jax.data.sources.user_files import find_user_files
from moe_jax.data.tasks.registry import find_task
from moe_jax.data.tasks.vocabulary import load_vocabulary
from moe_jax.errors import UserError

# Closing iterators that are still prefetching has taken minutes on a loaded machine: left open.
OPEN = []

LINES = 64


def documents_of(content):
    """Returns the documents of a text as they are before they are cut."""
    lines = content.replace(b"\r\n", b"\n").removesuffix(b"\n").split(b"\n")
    starts = range(0, len(lines), LINES)
    return [b"".join(line + b"\n" for line in lines[i : i + LINES]) for i in starts]


def check_pieces(pieces, documents, size):
    """Makes sure that pieces are the documents, cut where a line, a word or a character starts."""
    left = collections.Counter(pieces)
    for document in documents:
        place = 0
        while place < len(document):
            fits = [p for p in left if left[p] and document.startswith(p, place) and p]
            # The longest that fits: a text may start with another.
            piece = max(fits, key=len)
            left[piece] -= 1
            place += len(piece)
            piece.decode("utf-8")
            even = len(document) / -(-len(document) // size)
            assert len(piece) <= even * 1.5 + 4
            if place < len(document):
                assert len(piece) >= even / 2 - 4
                near = piece[-int(min(even / 2, 500)) + 8 :]
                if b"\n" in near:
                    assert piece.endswith(b"\n")
                elif b" " in near:
                    assert piece.endswith(b" ")
    assert not +left


def read(source, split, **how):
    dataset = source.get_dataset(split, shuffle=False, **how)
    return [example["text"] for example in dataset.as_numpy_iterator()]


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Returns the directory and the contents of files of many kinds."""
    home = tmp_path_factory.mktemp("documents")
    rng = random.Random(0)
    many = "".join(f"Zeile {i}: naïve 鯨 🐋 {'x' * (i % 50)}\n" for i in range(3000))
    contents = {
        "a_many.txt": many.encode(),
        # Characters of 1 to 4 bytes lie across every place where it could be cut.
        "b_huge.txt": b"abc"
        + "".join(rng.choice("aß鯨🐋") for _ in range(50_000)).encode()
        + b"\nend",
        "c_windows.txt": many.replace("\n", "\r\n").encode()[:-2],
        "d_packed.txt.gz": many.upper().encode(),
        "e_one.txt": b"ein",
        "f_blank.txt": b"\n\nthree\n\n",
    }
    for name, content in contents.items():
        content = gzip.compress(content) if name.endswith(".gz") else content
        (home / name).write_bytes(content)
    return str(home), list(contents.values())


def test_every_byte_is_in_one_split_once(files):
    pattern, contents = files
    own = find_user_files(f"text:{pattern}")
    found = {split: read(own.source(), split) for split in own.source().splits}
    every = found["train"] + found["validation"]
    documents = [d for content in contents for d in documents_of(content)]
    check_pieces(every, documents, own.split.piece_bytes)
    # All there is, but for the line ends of Windows and an end of line after every last line.
    size = sum(len(c.replace(b"\r\n", b"\n")) + (not c.endswith(b"\n")) for c in contents)
    assert sum(map(len, every)) == size
    assert sum(map(len, found["validation"])) == pytest.approx(size / 20, rel=0.15)
    # A part of a file is there twice: a.txt has the lines of c.txt.
    assert not set(found["train"]) & set(found["validation"])
    assert own.split.repeated == len(every) - len(set(every)) > 0
    assert any("are the same as another" in note for note in own.notes())


@pytest.mark.parametrize("streams", mostly_slow([2, 3]))
@pytest.mark.parametrize("names", ["*", "a_many.txt"])
def test_streams_have_all_pieces_once(files, streams, names):
    """As many files as streams: files are dealt; fewer: their pieces are."""
    provider = find_task(DataConfig(task=f"text:{files[0]}/{names}")).provider

    def read_stream(shard_info):
        dataset = provider.get_dataset(None, "train", shuffle=False, shard_info=shard_info)
        return collections.Counter(e["targets_pretokenized"] for e in dataset.as_numpy_iterator())

    parts = [read_stream(seqio.ShardInfo(i, streams)) for i in range(streams)]
    assert sum(parts, collections.Counter()) == read_stream(None)
    assert all(parts)


@pytest.mark.slow
def test_rows_of_a_batch_are_of_different_documents_with_a_stream_for_each():
    """So that nothing of a position pool's other rows is of the same document."""
    config = DataConfig(sequence_length=64, batch_size=4, shards=4, seed=2)
    batches = TrainBatches(config)
    OPEN.append(batches)
    vocabulary = load_vocabulary("embedded")
    documents = embedded_documents("train")
    for _ in range(30):
        used = []
        for row in next(batches).targets_BS:
            pieces = "".join(str(int(t)) + " " for t in row).split(" 1 ")
            texts = [vocabulary.decode([int(t) for t in p.split()]).strip() for p in pieces]
            known = [
                {i for i, d in enumerate(documents) if text in d}
                for text in texts
                if len(text) > 40
            ]
            assert all(known)
            used.append(set.union(set(), *(k for k in known if len(k) == 1)))
        assert sum(map(len, used)) == len(set.union(*used))
        assert all(used)


def write_records(path, rows, compression=""):
    with tf.io.TFRecordWriter(str(path), tf.io.TFRecordOptions(compression)) as writer:
        for row in rows:
            feature = {
                name: tf.train.Feature(bytes_list=tf.train.BytesList(value=[value.encode()]))
                for name, value in row.items()
            }
            example = tf.train.Example(features=tf.train.Features(feature=feature))
            writer.write(example.SerializeToString())


def test_records_with_the_text_in_another_field(tmp_path):
    texts = [f"Sch\u00f6ne {i}" for i in range(150)] + [" ".join(f"word{i}" for i in range(200))]
    rows = [{"text": "wrong", "content": text} for text in texts]
    write_records(tmp_path / "a.tfrecord", [*rows[:120], {"text": "none"}])
    write_records(tmp_path / "b.tfrecord.gz", rows[120:], "GZIP")
    task = find_task(DataConfig(task=f"tfrecord:{tmp_path}#content"))
    found = {
        split: [
            e["targets_pretokenized"].decode()
            for e in task.provider.get_dataset(None, split, shuffle=False).as_numpy_iterator()
        ]
        for split in task.provider.splits
    }
    check_pieces(
        [t.encode() for t in found["train"] + found["validation"]],
        [t.encode() for t in texts],
        256,
    )
    assert found["validation"]
    assert task.notes == (
        f"{tmp_path}/a.tfrecord: 1 of 121 records have no text in the field 'content'",
    )


def test_shuffled_files_are_other_orders_of_the_same(files):
    source = find_user_files(f"text:{files[0]}").source()
    orders = [
        [e["text"] for e in source.get_dataset("train", shuffle=True, seed=s).as_numpy_iterator()]
        for s in (0, 1, 2)
    ]
    plain = read(source, "train")
    assert all(sorted(order) == sorted(plain) for order in orders)
    assert any(order != plain for order in orders)


def damaged_records(home):
    """Writes TFRecord files that cannot be used; returns why, by name."""
    rows = [{"text": f"number {i}"} for i in range(40)]
    write_records(home / "whole", rows)
    whole = (home / "whole").read_bytes()
    one = len(whole) // 40
    (home / "whole").unlink()
    packed = gzip.compress(whole)
    (home / "cut.tfrecord").write_bytes(whole[: -one // 2])
    changed = bytearray(whole)
    changed[-one - 10] ^= 1
    (home / "damaged.tfrecord").write_bytes(bytes(changed))
    (home / "empty.tfrecord").write_bytes(b"")
    write_records(home / "field.tfrecord", [{"content": "text"}] * 3)
    (home / "packed.tfrecord.gz").write_bytes(packed[:-20])
    (home / "text.tfrecord").write_bytes(b"plain text, and no records at all")
    with tf.io.TFRecordWriter(str(home / "other.tfrecord")) as writer:
        writer.write(b"no example")
    number = tf.train.Feature(int64_list=tf.train.Int64List(value=[1]))
    features = tf.train.Features(feature={"text": number})
    with tf.io.TFRecordWriter(str(home / "numbers.tfrecord")) as writer:
        writer.write(tf.train.Example(features=features).SerializeToString())
    return {
        "cut.tfrecord": "ends too early: the record that begins at byte",
        "damaged.tfrecord": "is damaged: the record that begins at byte",
        "empty.tfrecord": "is empty",
        "field.tfrecord": "has no text in the field 'text'; it has: content",
        "numbers.tfrecord": "but a int64 list",
        "other.tfrecord": "is no TFRecord file of tf.train.Example",
        "packed.tfrecord.gz": f"ends too early: the gzip data stop at byte {len(packed) - 20}",
        "text.tfrecord": "is no TFRecord file (its first record is damaged)",
    }


def test_records_that_are_damaged_anywhere_are_left_out_and_named(tmp_path):
    reasons = damaged_records(tmp_path)
    with pytest.raises(UserError, match=r"no file that matches .* can be used: ") as error:
        find_files("tfrecord", str(tmp_path), "text")
    assert "\n" not in str(error.value)
    write_records(tmp_path / "good.tfrecord", [{"text": "good"}])
    found = find_files("tfrecord", str(tmp_path), "text")
    assert [p.rpartition("/")[2] for p in found.paths] == ["good.tfrecord"]
    for line, (name, reason) in zip(found.left_out, reasons.items(), strict=True):
        assert line.startswith(f"{tmp_path}/{name} ")
        assert reason in line, line


def mixed_files(home):
    """Writes texts that are read as they are and texts that must be copied; returns their lines."""
    lines = {}
    for number, (name, end) in enumerate(
        {"a.txt": "\n", "b.txt": "\r", "c.txt": "\r\n", "d[1].txt": "\n"}.items()
    ):
        lines[name] = [f"{name} line {i} of file {number}" for i in range(150)]
        (home / name).write_bytes(("\ufeff" + end.join(lines[name])).encode())
    packed = gzip.compress(b"packed 1\n"), gzip.compress(b""), gzip.compress(b"packed 2\n")
    (home / "e.txt").write_bytes(b"".join(packed))
    lines["e.txt"] = ["packed 1", "packed 2"]
    return lines


def test_texts_of_all_forms_beside_each_other(tmp_path):
    lines = mixed_files(tmp_path)
    own = find_user_files(f"text:{tmp_path}")
    assert own.notes() == ()
    source = own.source()
    every = b"".join(read(source, "train") + read(source, "validation")).decode()
    expected = [line for of_file in lines.values() for line in of_file]
    assert sum(len(line) + 1 for line in expected) == len(every)
    assert "\ufeff" not in every
    # Pieces end between words: none is torn.
    assert sorted(every.split()) == sorted(" ".join(expected).split())


@pytest.mark.slow
def test_a_position_is_gone_on_from_wherever_the_files_are(tmp_path):
    """Moved with what they hold: the position names no files, not even copied ones."""
    home = tmp_path / "one"
    home.mkdir()
    mixed_files(home)

    def batches(directory):
        user_files.clear_caches()
        config = DataConfig(f"text:{directory}", sequence_length=16, batch_size=4, seed=3)
        made = TrainBatches(config)
        OPEN.append(made)
        return made

    first = batches(home)
    for _ in range(20):
        next(first)
    first.save(epath.Path(tmp_path / "position"))
    expected = [next(first).targets_BS for _ in range(30)]
    home.rename(tmp_path / "two")
    again = batches(tmp_path / "two")
    again.restore(epath.Path(tmp_path / "position"))
    for batch in expected:
        np.testing.assert_array_equal(next(again).targets_BS, batch)
    (tmp_path / "two" / "z.txt").write_text("One more.\n")
    with pytest.raises(UserError, match="not the files that were trained on"):
        batches(tmp_path / "two").restore(epath.Path(tmp_path / "position"))


def test_a_large_corpus_is_split_without_counting(files, monkeypatch):
    monkeypatch.setattr(holdout_split, "_LARGE", 1000)
    monkeypatch.setattr(holdout_split, "MAX_PIECE_BYTES", 300)
    user_files.clear_caches()
    own = find_user_files(f"text:{files[0]}")
    user_files.clear_caches()
    assert own.split == HoldoutSplit(300, 0, (1 << 62) // 20)
    held = sum(map(len, read(own.source(), "validation")))
    every = held + sum(map(len, read(own.source(), "train")))
    assert held / every == pytest.approx(0.05, abs=0.015)
