"""Output that nobody reads: what leaves something behind goes on, what only prints ends quietly."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from moe_jax.commands.output import writes_files

# Prints lines, by Python, by rich and by the descriptor, then leaves a mark.
SCRIPT = """
import contextlib, os, sys
from pathlib import Path
from rich.console import Console
from moe_jax.commands import output

home, continues = Path(sys.argv[1]), sys.argv[2] == "on"
output.watch_readers(continues)
output.log_to(str(home / "log.txt"))
console = Console()
try:
    for number in range(3000):
        console.print(f"line {number}")
    print("from Python", flush=True)
    with contextlib.suppress(OSError):
        os.write(1, b"from C\\n")
    print("an error", file=sys.stderr)
    (home / "done").touch()
finally:
    output.finish()
sys.exit(3)
"""


def run(home, continues, shell):
    """Runs the script with a shell line around it; returns the exit code, output and errors."""
    script = home / "script.py"
    script.write_text(SCRIPT)
    command = f"{sys.executable} {script} {home} {'on' if continues else 'off'}"
    root = str(Path(__file__).parents[2])
    result = subprocess.run(
        ["bash", "-c", shell.format(command)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": root},
    )
    return result.returncode, result.stdout, result.stderr


def test_training_continues_and_says_where(tmp_path):
    code, out, err = run(tmp_path, True, "{} | head -1; exit ${{PIPESTATUS[0]}}")
    assert (code, out) == (3, "line 0\n")
    assert (tmp_path / "done").exists()
    log = (tmp_path / "log.txt").read_text()
    assert "nobody reads the standard output any more" in log.splitlines()[0]
    assert log.endswith("line 2999\nfrom Python\nfrom C\n")
    assert err == (
        f"moe-jax: nobody reads the output any more: it goes on in {tmp_path}/log.txt\nan error\n"
    )


def test_what_only_prints_ends_as_by_the_signal(tmp_path):
    code, out, err = run(tmp_path, False, "{} | head -1; exit ${{PIPESTATUS[0]}}")
    assert (code, out, err) == (141, "line 0\n", "")
    assert not (tmp_path / "done").exists()


def test_both_streams_in_one_pipe(tmp_path):
    code, out, err = run(tmp_path, True, "{} 2>&1 | head -1; exit ${{PIPESTATUS[0]}}")
    assert (code, out, err) == (3, "line 0\n", "")
    assert (tmp_path / "log.txt").read_text().endswith("an error\n")


@pytest.mark.parametrize(
    ("shell", "continues"), [("{} >&-", False), ("{} >&- 2>&- <&-", True), ("{} >/dev/full", False)]
)
def test_streams_that_were_never_there(tmp_path, shell, continues):
    code, out, err = run(tmp_path, continues, shell)
    assert (code, out) == (3, "")
    assert (tmp_path / "done").exists()
    assert "Exception" not in err


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_terminal_that_is_closed(tmp_path, unbuffered):
    """What it did not get is plain text in the log, though a terminal gets colours."""
    (tmp_path / "script.py").write_text(
        SCRIPT.replace("console = Console()", "console = Console(force_terminal=True)")
        .replace('f"line', 'f"[red]line')
        .replace("home, continues", "sys.stdin.readline()\nhome, continues")
    )
    ours, theirs = os.openpty()
    process = subprocess.Popen(
        [sys.executable, tmp_path / "script.py", tmp_path, "on"],
        stdin=subprocess.PIPE,
        stdout=theirs,
        stderr=theirs,
        env={
            **os.environ,
            "PYTHONPATH": str(Path(__file__).parents[2]),
            "PYTHONUNBUFFERED": unbuffered,
            "TERM": "xterm",
        },
    )
    os.close(theirs)
    os.close(ours)
    process.communicate(b"go\n")
    assert process.returncode == 3
    log = (tmp_path / "log.txt").read_text()
    lines = "".join(f"line {number}\n" for number in range(3000))
    assert f"\n{lines}from Python\nfrom C\n" in log
    assert "\x1b" not in log


def test_a_help_text_is_cut_short_without_a_word():
    command = f"{sys.executable} -m moe_jax.cli status --help | true; exit ${{PIPESTATUS[0]}}"
    result = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (141, "")


def test_what_leaves_something_behind():
    assert writes_files(["train", "--gin_file=x"])
    assert writes_files(["data", "cache", "--output_dir", "x"])
    assert writes_files(["compile", "--output_dir=x"])
    assert not writes_files(["config", "list"])
    assert not writes_files(["status", "runs/train"])
    assert not writes_files([])
