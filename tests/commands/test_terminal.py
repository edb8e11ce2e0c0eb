"""What strangers wrote is shown on a terminal, and gives it no commands."""

import io
import sys

import pytest
from rich.console import Console
from rich.progress import Progress

from moe_jax.commands import terminal


class Terminal(io.StringIO):
    """A text stream that is a terminal."""

    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b]52;c;ZXZpbA==\x07", "\\x1b]52;c;ZXZpbA==\x07"),
        ("\x1bP+q544e\x1b\\", "\\x1bP+q544e\\x1b\\"),
        ("\x1b[6n\x1b[c\x1b[?1049h", "\\x1b[6n\\x1b[c\\x1b[?1049h"),
        ("\x9d52;c;x\x9c", "\\x9d52;c;x\\x9c"),
        ("ends with \x1b", "ends with \\x1b"),
        ("ümläut, 日本, \t\n", "ümläut, 日本, \t\n"),
        (
            "\x1b[1;31mred\x1b[0m\x1b[2K\x1b[1A\x1b[?25l",
            "\x1b[1;31mred\x1b[0m\x1b[2K\x1b[1A\x1b[?25l",
        ),
    ],
)
def test_escape_sequences_of_others_are_shown(text, shown):
    stream = Terminal()
    assert terminal.EscapingStream(stream).write(text) == len(text)
    assert stream.getvalue() == shown


def test_rich_writes_the_same(monkeypatch):
    """Colours, a status and a progress bar need nothing that is held back."""

    def draw(file):
        console = Console(file=file, force_terminal=True, width=60, color_system="truecolor")
        console.print("[bold red]text[/] [#102030]more[/]", {"a": 1})
        with Progress(console=console, auto_refresh=False) as bar:
            bar.update(bar.add_task("x", total=2), advance=1, refresh=True)
        with console.status("working"):
            pass

    plain = Terminal()
    draw(terminal.EscapingStream(plain))
    assert "\\x1b" not in plain.getvalue()
    assert "\x1b[" in plain.getvalue()


def test_only_terminals_are_protected(monkeypatch):
    file, screen = io.StringIO(), Terminal()
    monkeypatch.setattr(sys, "stdout", file)
    monkeypatch.setattr(sys, "stderr", screen)
    terminal.protect()
    assert sys.stdout is file
    print("\x1b]0;title\x07", file=sys.stderr)
    assert screen.getvalue() == "\\x1b]0;title\x07\n"
    assert sys.stderr.isatty()


def test_what_an_encoding_has_not_is_spelt_out(monkeypatch):
    for name in ("stdout", "stderr"):
        bytes_ = io.BytesIO()
        monkeypatch.setattr(sys, name, io.TextIOWrapper(bytes_, encoding="ascii"))
        terminal.protect()
        print("\xe6\u9be8", file=getattr(sys, name), flush=True)
        assert bytes_.getvalue() == b"\\xe6\\u9be8\n"
