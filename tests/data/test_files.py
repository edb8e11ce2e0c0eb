"""A user's files: which are meant, and which cannot be used."""

import gzip
import os
import re

import pytest

from moe_jax.data.files import (
    JSONL_SUFFIXES,
    TEXT_SUFFIXES,
    find_files,
    find_text_files,
)
from moe_jax.errors import UserError

TEXT = b"A whale, a ship and a man.\n"


def write(home, *names, content=TEXT):
    for name in names:
        path = home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)


def found(pattern, home):
    """Returns the names that a pattern stands for, from `home` on."""
    return [os.path.relpath(path, home) for path in find_text_files(str(pattern)).paths]


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
    assert TEXT_SUFFIXES == (".txt", ".md", ".text")


def test_suffixes_follow_the_kind(tree):
    write(tree, "x.jsonl", "y.ndjson.gz", content=b"{}\n")
    paths = find_files(str(tree), JSONL_SUFFIXES).paths
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


def test_names_with_signs_of_patterns(tmp_path):
    write(tmp_path, "a[1]/book.txt", "a1/other.txt")
    assert found(tmp_path / "a[1]", tmp_path) == ["a[1]/book.txt"]


@pytest.mark.parametrize("pattern", ["{}/nothing.txt", "{}/empty", "", "{}/*.doc"])
def test_nothing_found_is_one_line(tmp_path, pattern):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"no file matches") as error:
        find_text_files(pattern.format(tmp_path))
    assert "\n" not in str(error.value)
    assert ".txt, .md, .text" in str(error.value)


def bad_files(home):
    """Writes one file of each kind that cannot be used; returns why, by name."""
    whole = gzip.compress(os.urandom(4000).hex().encode())
    broken = bytearray(whole)
    broken[40:60] = os.urandom(20)
    contents = {
        "binary.txt": b"text\0more",
        "blank.txt": b" \n\n\t\n",
        "cut.txt.gz": whole[: len(whole) // 2],
        "damaged.txt.gz": bytes(broken),
        "empty.txt": b"",
        "latin.txt": "Das ist schön\n".encode("latin-1"),
        "mac.txt": b"One line\rand another\r",
        "no_gzip.txt.gz": TEXT,
    }
    for name, content in contents.items():
        (home / name).write_bytes(content)
    (home / "dangling.txt").symlink_to(home / "nowhere.txt")
    return {
        "binary.txt": r"NUL bytes",
        "blank.txt": "is empty",
        "cut.txt.gz": "cannot be read",
        "damaged.txt.gz": "cannot be read",
        "empty.txt": "is empty",
        "latin.txt": r"is not UTF-8 text \(byte 11\)",
        "mac.txt": "carriage returns",
        "no_gzip.txt.gz": "cannot be read",
    }


def test_files_that_cannot_be_used_are_left_out_and_named(tmp_path):
    reasons = bad_files(tmp_path)
    write(tmp_path, "good.txt")
    result = find_text_files(str(tmp_path))
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


def test_good_files_need_no_notes(tree):
    assert find_text_files(str(tree)).notes() == ()


def test_a_file_that_may_not_be_read_is_left_out(tmp_path, monkeypatch):
    """Root may read everything: the refusal is the file system's."""
    import tensorflow as tf

    write(tmp_path, "good.txt", "secret.txt")
    real = tf.io.gfile.GFile

    def guarded(path, mode):
        if path.endswith("secret.txt"):
            raise tf.errors.PermissionDeniedError(None, None, f"{path}; Permission denied")
        return real(path, mode)

    monkeypatch.setattr(tf.io.gfile, "GFile", guarded)
    result = find_text_files(str(tmp_path))
    assert [os.path.basename(p) for p in result.paths] == ["good.txt"]
    (line,) = result.left_out
    assert "Permission denied" in line


def test_only_bad_files_are_one_line(tmp_path):
    bad_files(tmp_path)
    with pytest.raises(UserError, match=r"no file that matches .* can be used: ") as error:
        find_text_files(str(tmp_path))
    message = str(error.value)
    assert "\n" not in message
    assert "binary.txt is not a text file" in message


def test_a_character_may_lie_across_the_end_of_the_probe(tmp_path):
    """A megabyte is looked at, and a character cut there is no mistake; one before it is."""
    for shift in range(4):
        content = b"a" * shift + "🐋".encode() * (300 << 10)
        write(tmp_path, f"{shift}.txt", content=content)
    write(tmp_path, "bad.txt", content=b"a" * 9999 + b"\xff" + b"a" * (2 << 20))
    result = find_text_files(str(tmp_path))
    assert [os.path.basename(p) for p in result.paths] == [f"{s}.txt" for s in range(4)]
    assert "(byte 9999)" in result.left_out[0]
