"""JSON lines: the texts that are copied to the cache, and when."""

import gzip
import json
import os

import pytest
import tensorflow as tf

from moe_jax.data import jsonl
from moe_jax.data.config import DataConfig
from moe_jax.data.tasks import find_task
from moe_jax.errors import UserError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "moe_jax" / "jsonl"


def texts(path, field="text"):
    """Returns the texts that are copied of a file, and the line about those that are not."""
    copied, note = jsonl.convert(str(path), field)
    found = []
    for record in tf.data.TFRecordDataset(copied).as_numpy_iterator():
        features = tf.train.Example.FromString(record).features.feature
        assert list(features) == ["text"]
        found.append(features["text"].bytes_list.value[0].decode("utf-8"))
    return found, note


def write(path, rows, pack=False):
    content = "".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows).encode()
    path.write_bytes(gzip.compress(content) if pack else content)
    return path


def test_texts_are_copied_as_they_are(tmp_path):
    lines = ["plain", 'a "quote"\n\ttab \\ / \u00e9', "鯨🐋", "line\u2028separator", ""]
    path = write(tmp_path / "a.jsonl", [{"id": i, "text": t} for i, t in enumerate(lines)])
    assert texts(path) == (lines, None)
    raw = "".join(json.dumps({"text": t}, ensure_ascii=False) + "\n" for t in lines)
    (tmp_path / "raw.jsonl").write_text(raw, "utf-8")
    assert texts(tmp_path / "raw.jsonl") == (lines, None)


def test_escapes_and_surrogates(tmp_path):
    """A pair of surrogates is a character; one alone is none and is replaced."""
    rows = ['{"text": "\\ud83d\\udc0b \\u9be8 \\n"}', '{"text": "a\\ud83d b"}']
    (whole, lone), note = texts(write(tmp_path / "a.jsonl", rows))
    assert whole == "🐋 鯨 \n"
    assert lone in ("a? b", "a\ufffd b")
    assert note is None


def test_a_field_within_a_field(tmp_path):
    rows = [{"doc": {"body": {"en": f"t{i}"}}, "doc.body": "wrong"} for i in range(3)]
    path = write(tmp_path / "a.jsonl", rows)
    assert texts(path, "doc.body.en")[0] == ["t0", "t1", "t2"]


def test_the_field_after_the_number_sign(tmp_path, cache):
    rows = [{"text": "wrong", "a": {"b": f"number {i}"}} for i in range(25)]
    write(tmp_path / "x.jsonl", rows)
    (tmp_path / "more").mkdir()
    write(tmp_path / "more" / "y.jsonl.gz", rows[:1], pack=True)
    provider = find_task(DataConfig(task=f"jsonl:{tmp_path}#a.b")).provider
    found = [
        e["targets_pretokenized"].decode()
        for split in ("train", "validation")
        for e in provider.get_dataset(None, split, shuffle=False).as_numpy_iterator()
    ]
    assert sorted(found) == sorted([*(f"number {i}" for i in range(25)), "number 0"])
    assert len(list(cache.glob("*.tfrecord"))) == 2


def test_gzip_and_blank_lines(tmp_path):
    rows = [{"text": "a"}, "", "   ", {"text": "b"}, "\t"]
    assert texts(write(tmp_path / "a.jsonl.gz", rows, pack=True)) == (["a", "b"], None)


BAD = [
    ('{"text": "cut off', "Invalid control character"),
    ('{"txt": "other"}', "no field 'text'; it has: txt"),
    ('{"text": 5}', "field 'text' is no text but int"),
    ('["text"]', "no field 'text'; it has: no object"),
    ("not JSON", "Expecting value"),
]


@pytest.mark.parametrize(("line", "reason"), BAD, ids=[reason for _, reason in BAD])
def test_bad_lines_are_counted_and_the_first_is_named(tmp_path, line, reason):
    rows = [{"text": str(i)} for i in range(200)]
    path = write(tmp_path / "a.jsonl", [*rows[:6], line, *rows[6:-1], line])
    found, note = texts(path)
    assert found == [r["text"] for r in rows[:-1]]
    assert note.startswith(f"{path}: 2 of 201 lines are left out (the first: line 7: ")
    assert reason in note
    assert "\n" not in note
    assert find_task(DataConfig(task=f"jsonl:{path}")).notes == (note,)


def test_bytes_that_are_no_text_are_a_bad_line(tmp_path):
    path = write(tmp_path / "a.jsonl", [{"text": str(i)} for i in range(150)])
    path.write_bytes(path.read_bytes() + b'{"text": "caf\xe9"}\n')
    found, note = texts(path)
    assert len(found) == 150
    assert "1 of 151 lines" in note


def test_deep_json_is_a_bad_line(tmp_path):
    rows = [{"text": str(i)} for i in range(150)]
    path = write(tmp_path / "a.jsonl", [*rows, "[" * 100_000])
    assert "1 of 151 lines" in texts(path)[1]


@pytest.mark.parametrize(("good", "refused"), [(199, False), (197, True), (0, True)])
def test_more_than_one_in_a_hundred_is_refused(tmp_path, cache, good, refused):
    path = write(tmp_path / "a.jsonl", [*[{"text": "x"}] * good, "bad", "bad"])
    if not refused:
        assert len(texts(path)[0]) == good
        return
    with pytest.raises(UserError, match=rf"2 of {good + 2} lines have no text .*jsonl:FILES#"):
        texts(path)
    # Nothing is left that a later run would take for the copy.
    assert list(cache.iterdir()) == []


def test_a_file_of_blank_lines_is_refused(tmp_path):
    with pytest.raises(UserError, match="has no lines"):
        texts(write(tmp_path / "a.jsonl", ["", " "]))


def test_an_unchanged_file_is_copied_once(tmp_path, monkeypatch):
    path = write(tmp_path / "a.jsonl", [{"text": "one", "other": "two"}])
    first, _ = jsonl.convert(str(path), "text")
    before = os.stat(first).st_mtime_ns
    monkeypatch.setattr(jsonl, "_write", None)  # Not called again.
    assert jsonl.convert(str(path), "text")[0] == first
    assert os.stat(first).st_mtime_ns == before
    monkeypatch.undo()


def test_a_changed_file_and_another_field_are_copied_anew(tmp_path):
    path = write(tmp_path / "a.jsonl", [{"text": "one", "other": "two"}])
    first, _ = jsonl.convert(str(path), "text")
    assert texts(path, "other")[0] == ["two"]
    os.utime(path, ns=(1, 1))
    assert jsonl.convert(str(path), "text")[0] != first
    stat = os.stat(path)
    # The same size and time, another name.
    other = write(tmp_path / "b.jsonl", [{"text": "six", "other": "ten"}])
    os.utime(other, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert texts(other)[0] == ["six"]
    write(path, [{"text": "three"}])
    assert texts(path)[0] == ["three"]


def test_the_line_about_bad_lines_is_kept_with_the_copy(tmp_path):
    path = write(tmp_path / "a.jsonl", [*[{"text": "x"}] * 150, "bad"])
    assert texts(path)[1] == texts(path)[1] is not None


def test_a_copy_that_is_interrupted_leaves_nothing(tmp_path, cache, monkeypatch):
    path = write(tmp_path / "a.jsonl", [{"text": "x"}] * 50)
    real, count = jsonl._text, [0]

    def stop(line, field):
        count[0] += 1
        if count[0] == 20:
            raise KeyboardInterrupt
        return real(line, field)

    monkeypatch.setattr(jsonl, "_text", stop)
    with pytest.raises(KeyboardInterrupt):
        jsonl.convert(str(path), "text")
    assert list(cache.iterdir()) == []
    assert len(texts(path)[0]) == 50
