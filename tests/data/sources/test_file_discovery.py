"""A user's files: found, inspected to their ends, skipped with a reason, and cached."""

import gzip
import os
import re
import stat
import time

import pytest

from moe_jax.data.sources import cache_directory, file_discovery, file_reader, inspection_cache
from moe_jax.data.sources.file_discovery import SUFFIXES, find_files
from moe_jax.errors import UserError

TEXT = b"A whale, a ship and a man.\n"


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    home = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(home))
    find_files.cache_clear()
    return home / "moe_jax" / "files"


def write(home, *names, content=TEXT):
    for name in names:
        path = home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)


def found(pattern, home):
    """Returns the names that a pattern stands for, from `home` on."""
    return [os.path.relpath(path, home) for path in find_files("text", str(pattern)).paths]


@pytest.fixture
def tree(tmp_path):
    write(tmp_path, "b.txt", "a.md", "deep/er/c.text", "deep/d.TXT", "deep/e.txt.gz")
    write(tmp_path, "data.json", "photo.jpg", "noend", "deep/gz.gz", ".hidden.txt", ".git/x.txt")
    return tmp_path


IN_TREE = ["a.md", "b.txt", "deep/d.TXT", "deep/e.txt.gz", "deep/er/c.text"]


def test_a_directory_is_its_texts_at_any_depth(tree):
    """By their suffixes, gzipped or not, in the order of their names; nothing hidden."""
    assert found(tree, tree) == IN_TREE
    assert found(f"{tree}/", tree) == IN_TREE
    assert found(f"{tree}/deep", tree) == IN_TREE[2:]
    assert SUFFIXES["text"] == (".txt", ".md", ".text")
    # What is of another kind is said.
    notes = find_files("text", str(tree)).notes()
    assert notes == (
        f"4 files of other kinds are not read ({tree}/data.json, ...); name what is to be read",
    )


def test_suffixes_follow_the_kind(tree):
    write(tree, "data.json", "x.jsonl", "y.ndjson.gz", content=b'{"text": "a"}\n')
    paths = find_files("jsonl", str(tree)).paths
    assert [os.path.basename(p) for p in paths] == ["data.json", "x.jsonl", "y.ndjson.gz"]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("{}/*.txt", ["b.txt"]),
        ("{}/**/*.txt", ["b.txt"]),
        ("{}/**/*.*", ["a.md", "b.txt", "data.json", *IN_TREE[2:4], *IN_TREE[4:], "deep/gz.gz"]),
        ("{}/?.md", ["a.md"]),
        ("{}/b.txt", ["b.txt"]),
        # What is named is taken, whatever its suffix.
        ("{}/noend", ["noend"]),
        ("{}/.hidden.txt", [".hidden.txt"]),
        ("{}/b.txt, {}/a.md", ["a.md", "b.txt"]),
        ("{}/b.txt,{}/*.txt,{}/b.txt", ["b.txt"]),
        ("{}/deep,{}/a.md", ["a.md", *IN_TREE[2:]]),
        ("{}/nothing,{}/a.md", ["a.md"]),
    ],
)
def test_patterns(tree, pattern, expected):
    (tree / "photo.jpg").unlink()
    assert found(pattern.format(*[tree] * pattern.count("{}")), tree) == sorted(expected)


def test_the_home_directory(tree, monkeypatch):
    monkeypatch.setenv("HOME", str(tree))
    assert found("~/deep", tree) == IN_TREE[2:]
    assert found("~/*.md,~/b.txt", tree) == ["a.md", "b.txt"]


def test_what_names_nothing_is_said(tree):
    result = find_files("text", f"{tree}/nothing.txt,{tree}/b.txt,{tree}/*.doc")
    assert result.left_out == (f"{tree}/*.doc names no file", f"{tree}/nothing.txt names no file")


@pytest.mark.parametrize("pattern", ["{}/nothing.txt", "{}/empty", "", "{}/*.doc", "{}/a\0b"])
def test_nothing_found_is_one_line(tmp_path, pattern):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"no file matches") as error:
        find_files("text", pattern.format(tmp_path))
    assert "\n" not in str(error.value)
    assert ".txt, .md, .text" in str(error.value)


def bad_files(home):
    """Writes one file of each kind that cannot be used; returns why, by name."""
    whole = gzip.compress(os.urandom(4000).hex().encode())
    contents = {
        "binary.txt": b"text\0more",
        "blank.txt": b" \n\n\t\n",
        "cut.txt.gz": whole[: len(whole) // 2],
        "empty.txt": b"",
        "latin.txt": "Das ist sch\u00f6n\n".encode("latin-1"),
    }
    for name, content in contents.items():
        (home / name).write_bytes(content)
    (home / "nowhere.txt").symlink_to(home / "gone.txt")
    return {
        "binary.txt": r"NUL byte at byte 4",
        "blank.txt": "is empty",
        "cut.txt.gz": f"the gzip data stop at byte {len(whole) // 2}",
        "empty.txt": "is empty",
        "latin.txt": r"is not UTF-8 text \(byte 11\)",
        "nowhere.txt": "is a link to nothing",
    }


def test_files_that_cannot_be_used_are_left_out_and_named(tmp_path):
    reasons = bad_files(tmp_path)
    write(tmp_path, "good.txt")
    result = find_files("text", str(tmp_path))
    assert [os.path.basename(p) for p in result.paths] == ["good.txt"]
    assert len(result.left_out) == len(reasons)
    for line, (name, reason) in zip(result.left_out, reasons.items(), strict=True):
        assert line.startswith(f"{tmp_path}/{name} ")
        assert re.search(reason, line), line
        assert "\n" not in line
    notes = result.notes()
    assert notes[0] == f"{len(reasons)} of {len(reasons) + 1} files are left out:"
    assert notes[1:6] == tuple(f"  {line}" for line in result.left_out[:5])
    assert notes[6:] == (f"  and {len(reasons) - 5} more",)


def test_only_bad_files_are_one_line(tmp_path):
    bad_files(tmp_path)
    with pytest.raises(UserError, match=r"no file that matches .* can be used: ") as error:
        find_files("text", str(tmp_path))
    message = str(error.value)
    assert "\n" not in message
    assert "binary.txt is not a text file" in message


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), OSError(5, "I/O")])
def test_a_file_that_may_not_be_read_is_left_out(tmp_path, monkeypatch, error):
    """Root may read everything: the refusal is the file system's."""
    write(tmp_path, "good.txt", "secret.txt")
    real = file_reader.open_file

    def guarded(path):
        if path.endswith("secret.txt"):
            raise error
        return real(path)

    monkeypatch.setattr(file_reader, "open_file", guarded)
    result = find_files("text", str(tmp_path))
    assert [os.path.basename(p) for p in result.paths] == ["good.txt"]
    assert result.left_out == (f"{tmp_path}/secret.txt cannot be read ({error.strerror})",)


def test_a_file_that_vanishes_is_left_out(tmp_path, monkeypatch):
    write(tmp_path, "a.txt", "b.txt")
    real = file_reader.file_stamp

    def gone(path):
        if path.endswith("a.txt"):
            raise FileNotFoundError(2, "No such file or directory")
        return real(path)

    monkeypatch.setattr(file_reader, "file_stamp", gone)
    assert find_files("text", str(tmp_path)).left_out == (
        f"{tmp_path}/a.txt cannot be read (No such file or directory)",
    )


def settle(path):
    """Gives a file a time of change that a clock can tell from the next."""
    os.utime(path, ns=(1, time.time_ns() - 10_000_000_000))


def count_reads(monkeypatch):
    reads = []
    real = file_reader.open_file
    monkeypatch.setattr(file_reader, "open_file", lambda path: reads.append(path) or real(path))
    return reads


def test_a_file_is_read_to_its_end_once(tmp_path, monkeypatch):
    monkeypatch.setattr(inspection_cache, "_MIN_BYTES", 10)
    reads = count_reads(monkeypatch)
    write(tmp_path, "a.txt")
    write(tmp_path, "bad.txt", content=TEXT + b"\xff")
    path, bad = str(tmp_path / "a.txt"), str(tmp_path / "bad.txt")
    for settled, expected in [(False, 2), (False, 4), (True, 6), (False, 6)]:
        # A file that changed just now may change again at the same time: it is read again.
        if settled:
            os.utime(path, ns=(5, 5))
            os.utime(bad, ns=(5, 5))
        find_files.cache_clear()
        result = find_files("text", str(tmp_path))
        assert result.paths == (path,)
        assert "(byte 27)" in result.left_out[0]
        assert len(reads) == expected
    # A change of the size, of the time and of the kind are each looked at anew.
    os.utime(path, ns=(6, 6))
    find_files.cache_clear()
    find_files("text", path)
    find_files("text", str(tmp_path))
    assert reads[6:] == [path]


def test_copies_are_made_once_and_again_when_they_are_gone(tmp_path, monkeypatch, cache):
    reads = count_reads(monkeypatch)
    write(tmp_path, "a.jsonl", content=b'{"text": "one", "other": "two"}\n')
    path = tmp_path / "a.jsonl"
    os.utime(path, ns=(5, 5))

    def copy_of(field="text"):
        find_files.cache_clear()
        (file,) = find_files("jsonl", str(path), field).files
        assert file.field == "text"
        return file.path

    first = copy_of()
    assert os.path.dirname(first) == str(cache)
    assert copy_of() == first
    assert len(reads) == 1
    assert copy_of("other") != first
    assert len(reads) == 2
    os.unlink(first)
    assert copy_of() == first
    assert os.path.exists(first)
    # Another name and time of the same content, and other content.
    path.rename(tmp_path / "b.jsonl")
    path = tmp_path / "b.jsonl"
    assert copy_of() == first
    # Of the same size, and with its time set back: the time of its change cannot be.
    path.write_bytes(b'{"text": "six", "other": "two"}\n')
    os.utime(path, ns=(5, 5))
    assert copy_of() != first


def test_a_copy_that_is_interrupted_or_refused_leaves_nothing(tmp_path, cache):
    write(tmp_path, "a.jsonl", content=b'{"text": "x"}\n' * 20 + b"bad\n" * 20)
    with pytest.raises(UserError, match="has no text in the field 'text' in 20 of 40 lines"):
        find_files("jsonl", str(tmp_path))
    assert [p.suffix for p in cache.iterdir() if p.suffix != ".json"] == []


def test_a_full_disk_is_said(tmp_path, monkeypatch):
    from moe_jax.data.sources import file_inspection

    def full(own, target):
        raise OSError(28, "No space left on device")

    write(tmp_path, "a.jsonl", content=b'{"text": "x"}\n')
    monkeypatch.setattr(file_inspection.os, "replace", full)
    with pytest.raises(UserError, match=r"cannot write a copy .*No space left.*XDG_CACHE_HOME"):
        find_files("jsonl", str(tmp_path))


def test_without_a_home_that_can_be_written_to(tmp_path, monkeypatch):
    """As for a user without one, or with a full or read-only one."""
    write(tmp_path, "a.jsonl", content=b'{"text": "x"}\n')
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(cache_directory.tempfile, "tempdir", str(tmp_path))
    for home in (tmp_path / "file" / "cache", "relative", "/proc/nowhere"):
        monkeypatch.setenv("XDG_CACHE_HOME", str(home))
        find_files.cache_clear()
        result = find_files("jsonl", str(tmp_path))
        (note,) = [n for n in result.notes() if "cannot write to" in n]
        assert "\n" not in note
        assert str(tmp_path) in note
        place = os.path.dirname(result.files[0].path)
        assert place.startswith(f"{tmp_path}/moe_jax-")
        assert stat.S_IMODE(os.stat(os.path.dirname(place)).st_mode) == 0o700
    # What another user could have put there is not used.
    os.chmod(tmp_path / f"moe_jax-{os.getuid()}", 0o777)
    cache_directory._root.cache_clear()
    assert str(cache_directory.cache_directory("files")) != place
    cache_directory._root.cache_clear()


def test_progress_is_said_where_it_takes_long(tmp_path, monkeypatch):
    monkeypatch.setattr(file_discovery, "_FIRST_REPORT", 0.01)
    real = file_reader.open_file
    monkeypatch.setattr(file_reader, "open_file", lambda path: time.sleep(0.2) or real(path))
    write(tmp_path, "a.txt")
    said = []
    with file_discovery.progress_to(said.append):
        find_files("text", str(tmp_path))
    assert said
    assert re.fullmatch(
        r"reading the files to their ends .*: 0.00 GB in 0 s, 0 of 1 files", said[0]
    )


def test_files_of_a_remote_storage():
    """In TensorFlow's own file system in memory, which has a scheme as `gs://` has."""
    import tensorflow as tf

    tf.io.gfile.makedirs("ram://bucket/deep")
    contents = {"a.txt": TEXT, "deep/b[1].txt.gz": gzip.compress(TEXT), "c.txt": b"\xff"}
    for name, content in contents.items():
        with tf.io.gfile.GFile(f"ram://bucket/{name}", "wb") as file:
            file.write(content)
    result = find_files("text", "ram://bucket")
    assert result.paths == ("ram://bucket/a.txt", "ram://bucket/deep/b[1].txt.gz")
    assert [file.packed for file in result.files] == [False, True]
    assert len(result.left_out) == 1
    one = find_files("text", "ram://bucket/deep/b[1].txt.gz")
    assert one.files == result.files[1:]
