"""Reads definite_pronoun_resolution (Rahman and Ng 2012)."""

import itertools
from collections.abc import Iterator

from moe_jax.data.prepare.row_reader import DataFile, KeyedExample, MalformedRowError, decode


def read_definite_pronouns(file: DataFile, split: str) -> Iterator[KeyedExample]:
    """Reads definite_pronoun_resolution: sentence, pronoun, "first,second", the right one."""

    def parse(row: tuple[int, list[bytes]]) -> list[KeyedExample]:
        index, block = row
        if len(block) != 4:
            raise MalformedRowError(f"a block of {len(block)} lines, not 4")
        sentence, pronoun, both, correct = (decode(line).strip() for line in block)
        candidates = [candidate.strip() for candidate in both.split(",")]
        if len(candidates) != 2:
            raise MalformedRowError(f"{len(candidates)} candidates with commas between them, not 2")
        if correct not in candidates:
            raise MalformedRowError(f"the answer {correct!r} is not one of the candidates {both!r}")
        label = candidates.index(correct)
        example = {"sentence": sentence, "pronoun": pronoun, "candidates": candidates}
        return [(index, {**example, "label": label})]

    return file.rows(_blocks(file), parse)


def _blocks(file: DataFile) -> Iterator[tuple[int, tuple[int, list[bytes]]]]:
    """Yields runs of lines that are not empty, (line, (index, lines))."""
    groups = itertools.groupby(file.lines(), key=lambda line: bool(line[1].strip()))
    for index, lines in enumerate(list(group) for filled, group in groups if filled):
        yield lines[0][0], (index, [line for _, line in lines])
