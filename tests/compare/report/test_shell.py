"""Commands for a shell, checked by a shell."""

import shlex
import subprocess

import pytest

from moe_jax.compare.report import shell


def words_of(script):
    """Returns the words of each `moe-jax` command that bash runs, a function prints them."""
    printed = 'moe-jax() { printf "%s\\0" "$@"; printf "\\n"; }\n'
    done = subprocess.run(
        ["bash", "-c", printed + script], capture_output=True, text=True, check=True
    )
    return [line.split("\0")[:-1] for line in done.stdout.splitlines()]


def command(seed, offset=0, directory="my runs"):
    flags = [
        "train",
        "--gin_file=a.gin",
        "--gin.GShardTop2.pool=@Pool()",
        f"--gin.Train.seed={seed + offset}",
        f"--gin.Data.seed={seed}",
        f"--output_dir={directory}/it's/seed_{seed}",
    ]
    return shlex.join(["moe-jax", *flags])


@pytest.mark.parametrize("offset", [0, 1000, -1])
def test_a_loop_runs_the_commands_of_all_seeds(offset):
    commands = {seed: command(seed, offset) for seed in (1, 2, 13)}
    script = shell.loop_over_seeds(commands)
    assert script.count("moe-jax train \\\n") == 1
    assert words_of(script) == [shlex.split(line)[1:] for line in commands.values()]


def test_lines_are_the_same_command():
    lines = shell.on_lines(command(3))
    assert lines.splitlines()[:2] == ["moe-jax train \\", "  --gin_file=a.gin \\"]
    assert words_of(lines) == [shlex.split(command(3))[1:]]


@pytest.mark.parametrize(
    "commands",
    [
        {},
        {1: command(1)},
        {1: command(1), 2: command(2, directory="other")},
        {1: command(1), 2: command(2, offset=7)},
        {1: command(1), 2: f"{command(2)} --json"},
        {1: command(1), 2: ""},
        {1: "moe-jax train --x=01", 2: "moe-jax train --x=02"},
        {1: "moe-jax train 'open", 2: "moe-jax train 'open"},
    ],
)
def test_commands_that_differ_otherwise_have_no_loop(commands):
    assert shell.loop_over_seeds(commands) is None


@pytest.mark.parametrize("text", ["a | b", "moe-jax train 'open", "", "x;y", "$(reboot)"])
def test_what_shlex_did_not_write_stays_as_it_is(text):
    assert shell.on_lines(text) == text
