"""Command lines for a shell: a flag on each line, and one command for several seeds."""

import re
import shlex
from collections.abc import Mapping, Sequence

_NEXT_LINE = " \\\n  "
_NUMBERED = re.compile(r"(.*?)(\d+)", re.DOTALL)


def on_lines(command: str) -> str:
    """Returns a command with each flag on a line of its own.

    A command that `shlex.join` has not written is returned as it is.
    """
    words = _words(command)
    return command if words is None else _join([shlex.quote(word) for word in words])


def loop_over_seeds(commands: Mapping[int, str]) -> str | None:
    """Returns a loop that runs the commands of several seeds, with the seed as `$SEED`.

    Args:
        commands: command lines by seed.

    Returns:
        The loop; None for less than two commands, and if they differ in more than numbers that are
        the seed plus a constant.
    """
    lines = [_words(command) for command in commands.values()]
    if len(lines) < 2 or None in lines or len({len(line) for line in lines if line}) != 1:
        return None
    words = []
    for column in zip(*(line for line in lines if line), strict=True):
        word = _for_all(dict(zip(commands, column, strict=True)))
        if word is None:
            return None
        words.append(word)
    seeds = " ".join(map(str, commands))
    return f"for SEED in {seeds}; do\n{_join(words)}\ndone"


def _words(command: str) -> list[str] | None:
    """Returns the words of a command; None if they do not give the same text again."""
    try:
        words = shlex.split(command)
    except ValueError:
        return None
    return words if words and shlex.join(words) == command else None


def _for_all(by_seed: Mapping[int, str]) -> str | None:
    """Returns a quoted word that has the value of every seed; None if there is none."""
    values = list(by_seed.values())
    if len(set(values)) == 1:
        return shlex.quote(values[0])
    found = {seed: _NUMBERED.fullmatch(value) for seed, value in by_seed.items()}
    parts = {(match[1], int(match[2]) - seed) for seed, match in found.items() if match}
    if None in found.values() or len(parts) != 1:
        return None
    ((start, offset),) = parts
    if any(value != f"{start}{seed + offset}" for seed, value in by_seed.items()):
        return None
    variable = "$SEED" if offset == 0 else f"$((SEED {'+' if offset > 0 else '-'} {abs(offset)}))"
    return f"{shlex.quote(start)}{variable}"


def _join(words: Sequence[str]) -> str:
    """Returns quoted words with each flag, and what follows it, on a line of its own."""
    text = words[0]
    for word in words[1:]:
        is_flag = word.lstrip("'").startswith("-")
        text += f"{_NEXT_LINE if is_flag else ' '}{word}"
    return text
