"""Where verbs print to: nothing is cut in a pipe."""

import io

from rich.console import Console
from rich.table import Table

from moe_jax.commands.console import make_console


def printed(capsys, width=200):
    """Returns a table with a cell of some width, as it is printed."""
    table = Table("name", "value")
    table.add_row("wide", "x" * width)
    make_console().print(table)
    return capsys.readouterr().out


def test_a_table_is_whole_in_a_pipe(capsys, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    out = printed(capsys)
    assert "x" * 200 in out
    # And no line is padded beyond the table.
    assert max(map(len, out.splitlines())) < 220


def test_columns_say_another_width(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    assert max(map(len, printed(capsys).splitlines())) == 60


def test_a_terminal_keeps_its_width(monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    assert make_console().width > 1000
    monkeypatch.setattr(Console, "is_terminal", True)
    assert make_console().width == Console(file=io.StringIO()).width


def test_a_quiet_console_prints_nothing(capsys):
    make_console(quiet=True).print("something")
    assert capsys.readouterr().out == ""
