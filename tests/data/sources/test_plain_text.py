"""Files of text: errors with the offset of the byte, and documents."""

import bz2
import gzip
import hashlib
import io
import os
import random
import tarfile

import pytest

from moe_jax.data.sources import file_reader, plain_text
from moe_jax.data.sources.file_reader import FileReader, UnusableFileError
from moe_jax.data.sources.plain_text import check_text, text_documents

# What the files are read in, so that small files have many.
BLOCK = 64


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(file_reader, "BLOCK", BLOCK)


def check(path, content):
    """Writes a file; returns what is wrong with it as a text, None if nothing is."""
    path.write_bytes(content)
    try:
        check_text(FileReader(str(path)).blocks())
    except UnusableFileError as error:
        return str(error)
    return None


TEXT = ("Zeile mit na\u00efve \u9be8 \U0001f40b.\n" * 40).encode()


@pytest.mark.parametrize("place", [0, 1, 63, 64, 65, 127, 128, 1000])
def test_bytes_that_are_no_text_are_named_wherever_they_are(tmp_path, place):
    ascii_text = b"A whale, a ship.\n" * 80
    path = tmp_path / "a.txt"
    cut = ascii_text[:place], ascii_text[place:]
    assert f"(NUL byte at byte {place})" in check(path, cut[0] + b"\0" + cut[1])
    assert f"is not UTF-8 text (byte {place})" in check(path, cut[0] + b"\xe9" + cut[1])
    # The same in a packed file: the byte is one of the text.
    packed = gzip.compress(cut[0] + b"\xff" + cut[1])
    assert f"is not UTF-8 text (byte {place})" in check(path, packed)


def test_characters_may_lie_across_blocks_and_not_across_the_end(tmp_path):
    for shift in range(8):
        assert check(tmp_path / "a.txt", b"a" * shift + TEXT) is None
    whole = b"a" * 200 + "\U0001f40b".encode()
    for missing in (1, 2, 3):
        assert "(byte 200)" in check(tmp_path / "a.txt", whole[:-missing])


@pytest.mark.parametrize("where", [0.0, 0.3, 0.9, 1.0])
def test_a_packed_file_that_is_cut_or_damaged_is_named(tmp_path, where):
    rng = random.Random(0)
    packed = gzip.compress("".join(rng.choice("abcdefgh \n") for _ in range(4000)).encode())
    cut = max(12, int(len(packed) * where) - 4)
    problem = check(tmp_path / "a.txt.gz", packed[:cut])
    assert problem == f"ends too early: the gzip data stop at byte {cut}"
    damaged = bytearray(packed)
    damaged[cut] ^= 0x55
    assert "is damaged: gzip cannot unpack it" in check(tmp_path / "a.txt.gz", bytes(damaged))


def test_parts_of_packed_files(tmp_path):
    """As `cat a.gz b.gz` makes them; what TensorFlow would read otherwise is told apart."""
    one, two, empty = gzip.compress(TEXT), gzip.compress(b"more\n"), gzip.compress(b"")
    path = tmp_path / "a.gz"
    for content, text, plain in [
        (one + two, TEXT + b"more\n", True),
        (one + two + empty, TEXT + b"more\n", True),
        (empty + one, TEXT, False),
        (one + empty + two, TEXT + b"more\n", False),
        (one + bytes(100), TEXT, False),
        (one + bytes(100) + two, TEXT + b"more\n", False),
    ]:
        path.write_bytes(content)
        file = FileReader(str(path))
        assert b"".join(file.blocks()) == text
        assert (file.packed, file.plain_members) == (True, plain)
        assert file.checksum == hashlib.sha256(content).hexdigest()
    place = len(one)
    assert f"the data after byte {place} are not gzip" in check(path, one + b"garbage")


def test_packed_or_not_is_seen_from_the_content(tmp_path):
    assert check(tmp_path / "plain.txt.gz", TEXT) is None
    assert check(tmp_path / "packed.txt", gzip.compress(TEXT)) is None
    assert "is packed with bzip2" in check(tmp_path / "a.txt", bz2.compress(TEXT))
    assert "is a zip archive" in check(tmp_path / "b.txt", b"PK\x03\x04" + bytes(50))
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("book.txt"), io.BytesIO())
    tar = packed.getvalue()
    assert "is a tar archive; unpack it" in check(tmp_path / "c.txt", tar)
    assert "is a tar archive inside gzip" in check(tmp_path / "d.txt", gzip.compress(tar))
    twice = gzip.compress(gzip.compress(TEXT))
    assert "is packed with gzip twice" in check(tmp_path / "e.txt", twice)
    assert "is a PDF document; export its text" in check(tmp_path / "f.txt", b"%PDF-1.7\n")
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n"
    assert "get the file with `git lfs pull`" in check(tmp_path / "g.txt", pointer)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-32"])
def test_other_encodings_are_named(tmp_path, encoding):
    content = ("\ufeff" if encoding.endswith("be") else "") + "A whale.\n"
    problem = check(tmp_path / "a.txt", content.encode(encoding))
    name = encoding.upper().removesuffix("-BE")
    assert problem.startswith(f"is {name} and not UTF-8 text; convert it")


@pytest.mark.parametrize("content", [b"", b" \n\t\n", b"\xef\xbb\xbf", b"\xef\xbb\xbf \r\n"])
def test_empty_texts(tmp_path, content):
    assert check(tmp_path / "a.txt", content) == "is empty"
    assert check(tmp_path / "a.txt", gzip.compress(content)) == "is empty"


def test_a_file_that_changes_while_it_is_read_is_named(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(TEXT)
    blocks = FileReader(str(path)).blocks()
    next(blocks)
    with path.open("ab") as more:
        more.write(b"x" * 1000)
    with pytest.raises(UnusableFileError, match="changes while it is read"):
        list(blocks)


def form(path, content):
    path.write_bytes(content)
    return check_text(FileReader(str(path)).blocks())


def test_carriage_returns_are_told_apart(tmp_path):
    path = tmp_path / "a.txt"
    for size in range(BLOCK - 4, BLOCK + 4):
        line = b"x" * size
        assert not form(path, (line + b"\r\n") * 5).returns
        assert form(path, line + b"\r" + line + b"\n").returns
        assert form(path, line + b"\r\r\n" + line).returns
    assert form(path, b"x" * 500).longest == 500
    assert form(path, b"\xef\xbb\xbfx").mark
    assert not form(path, b"x\xef\xbb\xbf").mark


@pytest.mark.parametrize("ends", [("\n",), ("\r\n",), ("\r",), ("\r", "\n", "\r\n")])
def test_documents_have_the_lines_whatever_ends_them(tmp_path, ends):
    """As Python's own universal newlines have them, 64 lines a document."""
    rng = random.Random(1)
    text = "\ufeff" + "".join("\u00e9" * rng.randint(0, 90) + rng.choice(ends) for _ in range(300))
    path = tmp_path / "a.txt"
    path.write_bytes(text.encode() + b"the end")
    with open(path, encoding="utf-8-sig", newline=None) as file:
        expected = file.read() + "\n"
    found = [d.decode() for d in text_documents(FileReader(str(path)).blocks())]
    assert "".join(found) == expected
    lines = [d.count("\n") for d in found]
    assert set(lines[:-1]) == {64}


def test_very_long_lines_are_cut_between_characters(tmp_path, monkeypatch):
    monkeypatch.setattr(plain_text, "_COPIED_BYTES", 100)
    text = "short\n" + "\U0001f40b\u00e9a" * 500 + "\n" + "short\n" * 70
    path = tmp_path / "a.txt"
    path.write_bytes(text.encode())
    found = [d.decode() for d in text_documents(FileReader(str(path)).blocks())]
    assert "".join(found) == text
    assert max(len(d.encode()) for d in found) < 2 * 100


def test_a_missing_file_is_an_error_of_the_system(tmp_path):
    with pytest.raises(OSError, match="No such file"):
        FileReader(os.fspath(tmp_path / "gone.txt"))
