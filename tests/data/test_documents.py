"""Documents of a user's files: all of the text, once, in one split, dealt to streams."""

import collections
import gzip
import itertools

import pytest
import seqio
import tensorflow as tf

from moe_jax.data.config import DataConfig
from moe_jax.data.corpus import embedded_documents
from moe_jax.data.documents import text_source, tfrecord_source
from moe_jax.data.pipeline import TrainBatches
from moe_jax.data.tasks import find_task
from moe_jax.data.vocabulary import load_vocabulary
from moe_jax.errors import UserError

# Closing iterators that are still prefetching has taken minutes on a loaded machine: left open.
OPEN = []

# By the documentation: lines of a document, bytes of a piece, and one document held out of so many.
LINES, PIECE, HELD_OUT = 64, 65536, 20


def cut(text):
    """Returns the pieces of a document: cut every 64 kB, before the character that is there."""
    places = [0]
    while places[-1] < len(text):
        place = min(len(places) * PIECE, len(text))
        while place < len(text) and text[place] & 0xC0 == 0x80:
            place -= 1
        places.append(place)
    return [text[a:b] for a, b in itertools.pairwise(places)]


def expected_pieces(files):
    """Returns {split: pieces} of files' contents, in order of their names."""
    pieces = {"train": [], "validation": []}
    for f, content in enumerate(files):
        content = content.replace(b"\r\n", b"\n")
        lines = content.removesuffix(b"\n").split(b"\n")
        for d in range(0, -(-len(lines) // LINES)):
            document = b"".join(line + b"\n" for line in lines[d * LINES : (d + 1) * LINES])
            split = "validation" if (f + d) % HELD_OUT == 0 else "train"
            pieces[split] += cut(document)
    return pieces


def read(source, split, **how):
    dataset = source.get_dataset(split, shuffle=False, **how)
    return [example["text"] for example in dataset.as_numpy_iterator()]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Returns the paths and the contents of files of many kinds."""
    home = tmp_path_factory.mktemp("documents")
    many = "".join(f"Zeile {i}: naïve 鯨 🐋 {'x' * (i % 50)}\n" for i in range(3000))
    contents = {
        "a_many.txt": many.encode(),
        # Characters of 1 to 4 bytes lie across every place where it could be cut.
        "b_huge.txt": b"abc" + ("aß鯨🐋" * 30_000).encode() + b"\nlast line",
        "c_windows.txt": many.replace("\n", "\r\n").encode()[:-2],
        "d_packed.txt.gz": many.upper().encode(),
        "e_one.txt": b"ein",
        "f_blank.txt": b"\n\nthree\n\n",
    }
    for name, content in contents.items():
        content = gzip.compress(content) if name.endswith(".gz") else content
        (home / name).write_bytes(content)
    return tuple(str(home / name) for name in contents), list(contents.values())


def test_every_byte_is_in_one_split_once(files):
    paths, contents = files
    expected = expected_pieces(contents)
    source = text_source(paths)
    found = {split: read(source, split) for split in expected}
    for split, pieces in expected.items():
        assert collections.Counter(found[split]) == collections.Counter(pieces), split
    # 300 kB without an end of line, in pieces that are text each.
    assert sum(len(piece) > PIECE - 4 for piece in found["train"] + found["validation"]) >= 4
    for piece in found["train"] + found["validation"]:
        assert len(piece) <= PIECE + 3
        piece.decode("utf-8")
    # All there is, but for the line ends of Windows and an end of line after every last line.
    size = sum(len(c.replace(b"\r\n", b"\n")) + (not c.endswith(b"\n")) for c in contents)
    assert sum(map(len, found["train"] + found["validation"])) == size
    assert found["validation"]


@pytest.mark.parametrize("streams", [2, 3])
@pytest.mark.parametrize("names", ["*", "a_many.txt"])
def test_streams_have_all_pieces_once(files, streams, names):
    """As many files as streams: files are dealt; fewer: their pieces are."""
    paths, _ = files
    pattern = paths[0].replace("a_many.txt", names)
    provider = find_task(DataConfig(task=f"text:{pattern}")).provider

    def read_stream(shard_info):
        dataset = provider.get_dataset(None, "train", shuffle=False, shard_info=shard_info)
        return collections.Counter(e["targets_pretokenized"] for e in dataset.as_numpy_iterator())

    parts = [read_stream(seqio.ShardInfo(i, streams)) for i in range(streams)]
    assert sum(parts, collections.Counter()) == read_stream(None)
    assert all(parts)


def test_bytes_that_are_no_text_are_replaced(tmp_path):
    """Far into a file, where nobody looked: U+FFFD for every byte of no character."""
    good = b"line of text\n" * 63
    lines = good + b"caf\xe9 au lait, \xff\xf0\x9f\n" + good
    # Held out is the first run of 64 lines.
    before = b"y" * (1 << 20) + b"\n" + good
    (tmp_path / "book.txt").write_bytes(before + lines)
    provider = find_task(DataConfig(task=f"text:{tmp_path}/book.txt")).provider
    dataset = provider.get_dataset(None, "train", shuffle=False)
    texts = b"".join(e["targets_pretokenized"] for e in dataset.as_numpy_iterator()).decode()
    (line,) = [line for line in texts.split("\n") if "caf" in line]
    assert line.startswith("caf\ufffd au lait, \ufffd\ufffd")
    assert texts.replace(line + "\n", "") == good.decode() * 2


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
    texts = [f"Schöne {i}" for i in range(50)]
    rows = [{"text": "wrong", "content": text} for text in texts]
    write_records(tmp_path / "a.tfrecord", rows[:30])
    write_records(tmp_path / "b.tfrecord.gz", rows[30:], "GZIP")
    paths = (str(tmp_path / "a.tfrecord"), str(tmp_path / "b.tfrecord.gz"))
    source = tfrecord_source(paths, "content")
    found = {split: sorted(t.decode() for t in read(source, split)) for split in source.splits}
    # Of the first file documents 0 and 20, of the second 19 (its number is 1).
    held = [texts[0], texts[20], texts[30 + 19]]
    assert found["validation"] == sorted(held)
    assert found["train"] == sorted(set(texts) - set(held))
    config = DataConfig(task=f"tfrecord:{tmp_path}#content")
    dataset = find_task(config).provider.get_dataset(None, "validation", shuffle=False)
    pieces = [e["targets_pretokenized"].decode() for e in dataset.as_numpy_iterator()]
    assert sorted(pieces) == sorted(held)


def test_shuffled_files_are_other_orders_of_the_same(files):
    paths, _ = files
    source = text_source(paths)
    orders = [
        [e["text"] for e in source.get_dataset("train", shuffle=True, seed=s).as_numpy_iterator()]
        for s in (0, 1, 2)
    ]
    plain = read(source, "train")
    assert all(sorted(order) == sorted(plain) for order in orders)
    assert any(order != plain for order in orders)


def test_records_without_the_field_are_refused(tmp_path):
    write_records(tmp_path / "a.tfrecord", [{"content": "text"}])
    with pytest.raises(UserError, match=r"a.tfrecord has no text in the field 'text'.*: content"):
        find_task(DataConfig(task=f"tfrecord:{tmp_path}/a.tfrecord"))


@pytest.mark.parametrize("content", [b"plain text, and no records at all", b"{}\n" * 50])
def test_files_that_are_no_records_are_refused(tmp_path, content):
    (tmp_path / "a.tfrecord").write_bytes(content)
    with pytest.raises(UserError, match=r"a.tfrecord is no TFRecord file") as error:
        find_task(DataConfig(task=f"tfrecord:{tmp_path}"))
    assert "\n" not in str(error.value)


def test_text_files_may_have_number_signs_in_their_names(tmp_path):
    (tmp_path / "C#").mkdir()
    (tmp_path / "C#" / "book.txt").write_text("A whale.")
    provider = find_task(DataConfig(task=f"text:{tmp_path}/C#/*.txt")).provider
    (example,) = provider.get_dataset(None, "validation", shuffle=False).as_numpy_iterator()
    assert example["targets_pretokenized"] == b"A whale.\n"
