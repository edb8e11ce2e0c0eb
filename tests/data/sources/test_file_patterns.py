"""Expansion of names and patterns to files, with any characters in the names."""

import os
import socket

import pytest

from moe_jax.data.sources.file_patterns import match_files, printable_path, split_field, split_names

SUFFIXES = (".txt", ".md")


def found(files, home):
    """Returns the names of the files that are meant, from `home` on."""
    return [os.path.relpath(path, home) for path in match_files(str(files), SUFFIXES).paths]


def touch(home, *names):
    for name in names:
        path = os.path.join(home, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as file:
            file.write("A whale.\n")


NAMES = [
    "part[1].txt",
    "part?.txt",
    "a*b.txt",
    "**.txt",
    "Smith, John.txt",
    "a,b,c.txt",
    "c#.txt",
    " space at both ends.txt ",
    "~tilde.txt",
    "~",
    "colon: x.txt",
    "{x}.txt",
    "a\\b.txt",
    "line\nfeed.txt",
    "caf\udce9.txt",
    "na\u00efve.txt",
    "-rf.txt",
    "%41.txt",
    "$HOME.txt",
    "'quoted\".txt",
]


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_a_name_that_exists_means_that_file(tmp_path, monkeypatch, name):
    """Alone, with others around that it would match as a pattern, and in a list."""
    touch(tmp_path, name, "part1.txt", "a, other b.txt", "Smith", "a", "b", "x.txt")
    assert found(tmp_path / name, tmp_path) == [name]
    monkeypatch.chdir(tmp_path)
    assert match_files(name, SUFFIXES).paths == [name]
    for listed in (f"{name},x.txt", f"x.txt,{name}"):
        assert sorted(match_files(listed, SUFFIXES).paths) == sorted([name, "x.txt"])


def test_a_directory_has_files_of_any_name_once(tmp_path):
    names = [n for n in NAMES if n.endswith(".txt")]
    touch(tmp_path, *names, "part1.txt")
    assert sorted(found(tmp_path, tmp_path)) == sorted([*names, "part1.txt"])


def test_what_training_runs_write_is_no_data(tmp_path):
    """A run directory among the texts is left out, from its first moment on; a named one is not."""
    touch(tmp_path, "notes/a.txt", "notes/checkpoints/b.txt", "notes/owner.json")
    touch(tmp_path, "notes/new/owner.json", "notes/new/checkpoints/x", "notes/new/log.txt")
    touch(tmp_path, "notes/old/config.gin", "notes/old/checkpoints/2/done.txt", "notes/old/log.txt")
    touch(tmp_path, "notes/other/owner.json", "notes/other/c.txt")
    notes = tmp_path / "notes"
    for pattern in (notes, f"{notes}/**"):
        result = match_files(str(pattern), (".txt",))
        texts = [os.path.relpath(p, notes) for p in result.paths if p.endswith(".txt")]
        assert texts == ["a.txt", "checkpoints/b.txt", "other/c.txt"]
        assert sorted(result.runs) == [str(notes / "new"), str(notes / "old")]
    assert found(notes / "old" / "*.txt", notes) == ["old/log.txt"]


def test_a_file_is_found_once_through_all_of_its_names(tmp_path):
    touch(tmp_path, "deep/a.txt", "b.txt", "deep/er/c.txt")
    os.symlink(".", tmp_path / "deep" / "self")
    os.symlink("..", tmp_path / "deep" / "er" / "up")
    os.symlink("deep", tmp_path / "alias")
    os.symlink("deep", tmp_path / "other_alias")
    os.symlink("deep/a.txt", tmp_path / "a_link.txt")
    os.link(tmp_path / "b.txt", tmp_path / "deep" / "hard.txt")
    every = ["b.txt", "deep/a.txt", "deep/er/c.txt"]
    home = str(tmp_path)
    assert found(home, home) == every
    assert found(f"{home}/**/*.txt", home) == every
    # Under the name of a link where nothing else that is given names it.
    listed = f"{home}/b.txt,{home}/./b.txt,{home}/*.txt,{home}/b.txt"
    assert found(listed, home) == ["a_link.txt", "b.txt"]
    assert found(f"{home}/alias,{home}/other_alias", home) == [
        "alias/a.txt",
        "alias/er/c.txt",
        "alias/hard.txt",
    ]


def test_links_to_themselves_and_to_nothing_are_named(tmp_path):
    touch(tmp_path, "good.txt")
    os.symlink("round.txt", tmp_path / "round.txt")
    os.symlink("nowhere.txt", tmp_path / "gone.txt")
    result = match_files(str(tmp_path), SUFFIXES)
    assert [os.path.basename(path) for path in result.paths] == ["good.txt"]
    assert {os.path.basename(path): why for path, why in result.problems.items()} == {
        "round.txt": "is a link to nothing",
        "gone.txt": "is a link to nothing",
    }


def test_what_is_no_file_is_named_and_never_opened(tmp_path, monkeypatch):
    touch(tmp_path, "good.txt")
    os.mkfifo(tmp_path / "fifo.txt")
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket.txt")
        result = match_files(f"{tmp_path},/dev/zero,missing.txt", SUFFIXES)
    assert [os.path.basename(path) for path in result.paths] == ["good.txt"]
    assert result.problems == {
        f"{tmp_path}/fifo.txt": "is a FIFO, not a file",
        f"{tmp_path}/socket.txt": "is a socket, not a file",
        "/dev/zero": "is a device, not a file",
        "missing.txt": "names no file",
    }


def test_a_directory_that_may_not_be_entered_is_named(tmp_path, monkeypatch):
    """Root may read everything: the refusal is the file system's."""
    touch(tmp_path, "good.txt", "secret/x.txt")
    real = os.scandir

    def guarded(path):
        if str(path).endswith("secret"):
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "scandir", guarded)
    result = match_files(str(tmp_path), SUFFIXES)
    assert len(result.paths) == 1
    assert result.problems == {f"{tmp_path}/secret": "cannot be read (Permission denied)"}


def test_directories_with_no_file_of_the_kind_give_those_without_a_suffix(tmp_path):
    touch(tmp_path, "text8", "photo.jpg", ".hidden", "packed.txt.gz/inner")
    result = match_files(str(tmp_path), SUFFIXES)
    assert [os.path.relpath(path, tmp_path) for path in result.paths] == [
        "packed.txt.gz/inner",
        "text8",
    ]
    assert [os.path.basename(path) for path in result.others] == ["photo.jpg"]
    touch(tmp_path, "a.txt")
    result = match_files(str(tmp_path), SUFFIXES)
    assert [os.path.basename(path) for path in result.paths] == ["a.txt"]
    assert len(result.others) == 3


def test_directories_that_match_a_pattern_are_named(tmp_path):
    touch(tmp_path, "a.txt", "books/b.txt")
    result = match_files(f"{tmp_path}/*", SUFFIXES)
    assert [os.path.basename(path) for path in result.paths] == ["a.txt"]
    assert result.others == [f"{tmp_path}/books"]


def test_commas_separate_what_is_no_name(tmp_path, monkeypatch):
    touch(tmp_path, "a, b.txt", "a", "c.txt", "d,1/e.txt")
    monkeypatch.chdir(tmp_path)
    assert split_names("a, b.txt,c.txt") == ["a, b.txt", "c.txt"]
    assert split_names("c.txt,a, b.txt") == ["c.txt", "a, b.txt"]
    assert split_names("d,1/*.txt,c.txt") == ["d,1/*.txt", "c.txt"]
    assert split_names("a,nothing, b.txt") == ["a", "nothing", " b.txt"]
    assert split_names("gs://b/x,y.txt,gs://b/z") == ["gs://b/x", "y.txt", "gs://b/z"]


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ("c#.txt", ("c#.txt", None)),
        ("c#.txt#body", ("c#.txt", "body")),
        ("c#/*.txt", ("c#/*.txt", None)),
        ("c#/*.txt#a.b", ("c#/*.txt", "a.b")),
        ("plain.txt#body", ("plain.txt", "body")),
        ("plain.txt", ("plain.txt", None)),
        ("plain.txt,c#.txt#body", ("plain.txt,c#.txt", "body")),
        ("missing.txt#body", ("missing.txt", "body")),
        ("mis#sing.txt#body", ("mis#sing.txt", "body")),
        ("gs://bucket/*.txt#body", ("gs://bucket/*.txt", "body")),
        ("plain.txt#", ("plain.txt", None)),
        ("d,1.txt,c#.txt#a#b", ("d,1.txt,c#.txt", "a#b")),
    ],
)
def test_a_number_sign_starts_a_field_unless_it_is_in_a_name(
    tmp_path, monkeypatch, files, expected
):
    touch(tmp_path, "c#.txt", "c#/x.txt", "plain.txt", "c", "d,1.txt")
    monkeypatch.chdir(tmp_path)
    assert split_field(files) == expected


def test_names_are_shown_in_utf8():
    assert printable_path("na\u00efve.txt") == "na\u00efve.txt"
    assert printable_path("caf\udce9.txt") == "caf\\xe9.txt"
