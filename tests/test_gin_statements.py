"""Gin files are read once: what was checked is what gin gets, with what may go wrong said."""

import os

import pytest
from gin.config_parser import BindingStatement, ImportStatement, IncludeStatement

from moe_jax import config, experiments
from moe_jax.config_source import ConfigSource
from moe_jax.errors import UserError
from moe_jax.gin_statements import Reference, StatementReader

QUICKSTART = ["runs/quickstart.gin"]


def read(directory, files, bindings=(), **arguments):
    return StatementReader(["", str(directory)], **arguments).statements(files, bindings)


def test_statements_come_in_gins_order_with_where_they_stand(tmp_path):
    (tmp_path / "outer.gin").write_text("A = 1\ninclude 'inner.gin'\nC = @x/Y()\n")
    (tmp_path / "inner.gin").write_text("# nothing\nimport os.path as p\nM.b = [%A, {'k': @f}]\n")
    lines = read(tmp_path, ["outer.gin"], ["D.e = 2"])
    kinds = [type(line.parsed) for line in lines]
    assert kinds == [
        BindingStatement,
        IncludeStatement,
        ImportStatement,
        BindingStatement,
        BindingStatement,
        BindingStatement,
    ]
    assert [line.root for line in lines] == ["outer.gin"] * 5 + [""]
    assert lines[2].location == f"{tmp_path}/inner.gin, line 2"
    assert lines[3].parsed.value == [Reference("A", macro=True), {"k": Reference("f")}]
    assert lines[4].parsed.value.selector == "Y"
    assert lines[5].location == "a --gin.NAME=VALUE"


def test_a_file_that_changes_after_the_check_changes_nothing(tmp_path, monkeypatch):
    """The text that was checked is the text that gin reads (no time of check, time of use)."""
    (tmp_path / "inner.gin").write_text("Train.steps = 5\n")
    (tmp_path / "outer.gin").write_text(f"include '{tmp_path}/inner.gin'\n")
    check = config.gin_imports.check

    def swap(*arguments):
        check(*arguments)
        (tmp_path / "inner.gin").write_text("import os\nTrain.steps = 6\n")
        (tmp_path / "outer.gin").write_text("include 'another.gin'\n")

    monkeypatch.setattr(config.gin_imports, "check", swap)
    assert experiments.load(ConfigSource([*QUICKSTART, f"{tmp_path}/outer.gin"])).train.steps == 5


def test_a_file_that_appears_after_the_check_is_not_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "paths").mkdir()
    (tmp_path / "paths" / "own.gin").write_text("Train.steps = 5\n")
    check = config.gin_imports.check

    def appear(*arguments):
        check(*arguments)
        (tmp_path / "own.gin").write_text("import os\nTrain.steps = 6\n")

    monkeypatch.setattr(config.gin_imports, "check", appear)
    assert experiments.load(ConfigSource([*QUICKSTART, "own.gin"], [], ["paths"])).train.steps == 5


def test_search_paths_are_those_of_this_configuration_only(tmp_path):
    (tmp_path / "own.gin").write_text("Train.steps = 5\n")
    assert (
        experiments.load(ConfigSource([*QUICKSTART, "own.gin"], [], [str(tmp_path)])).train.steps
        == 5
    )
    with pytest.raises(UserError, match=r"no gin file 'own\.gin'"):
        experiments.load(ConfigSource([*QUICKSTART, "own.gin"]))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"include 'own.gin'\n", r"own.gin includes itself"),
        (
            b"include 'other.gin'\n",
            r"in a circle: own.gin -> other.gin -> own.gin",
        ),
        (b"include 'absent.gin'\n", r"no gin file 'absent.gin', .* \(own.gin, line 1\)"),
        (b"include 'pipe'\n", r"no gin file 'pipe', neither"),
        (b"include '/dev/zero'\n", r"no gin file '/dev/zero', neither"),
        (b"include 'a\\x00b'\n", r"no gin file 'a\\x00b', neither"),
        (b"Train.steps = \xff\n", r"own.gin is not a gin file: its byte 14 is not UTF-8 text"),
        (b"Train.steps = (1,\n", r"own.gin, line"),
        (b"Train.steps = " + b"[" * 5000 + b"\n", r"own.gin"),
        (b"Train.steps = 1 2\n", r"own.gin, line 1"),
        (b"#" * (5 << 20), r"own.gin has 5,242,880 bytes, which is no gin file"),
    ],
)
def test_files_that_are_no_gin_files_are_one_line(tmp_path, monkeypatch, text, message):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    (tmp_path / "own.gin").write_bytes(text)
    (tmp_path / "other.gin").write_text("include 'own.gin'\n")
    with pytest.raises(UserError, match=message) as error:
        experiments.load(ConfigSource([*QUICKSTART, "own.gin"]))
    assert "\n" not in str(error.value)


def test_includes_that_multiply_are_ended(tmp_path):
    for number in range(20):
        (tmp_path / f"{number}.gin").write_text(f"include '{number + 1}.gin'\n" * 2)
    (tmp_path / "20.gin").write_text("A = 1\n")
    with pytest.raises(UserError, match="includes more than 1000 files"):
        read(tmp_path, ["0.gin"])


def test_files_of_other_systems_are_read(tmp_path):
    path = tmp_path / "own.gin"
    path.write_bytes(b"\xef\xbb\xbfTrain.steps = 5\r\nTrain.seed = 3\rTrain.log_every = 2\r\n")
    train = experiments.load(ConfigSource([*QUICKSTART, str(path)])).train
    assert (train.steps, train.seed, train.log_every) == (5, 3, 2)


def test_the_file_of_a_run_includes_nothing_from_a_network(tmp_path):
    own = tmp_path / "config.gin"
    own.write_text("include 'gs://bucket/evil.gin'\n")
    with pytest.raises(UserError, match=r"was refused .*includes nothing from a network"):
        read(tmp_path, [str(own)], run=str(own))
