"""Readers of definite_pronoun_resolution and SQuAD."""

import itertools
import json
from collections.abc import Iterator
from typing import Any

from moe_jax.data.prepare.jsonl import get, objects
from moe_jax.data.prepare.layout import plain_name
from moe_jax.data.prepare.lines import BadRow, File, Pair, decode
from moe_jax.errors import UserError


def read_pronouns(file: File, split: str) -> Iterator[Pair]:
    """Reads definite_pronoun_resolution: sentence, pronoun, "first,second", the right one."""

    def parse(row: tuple[int, list[bytes]]) -> list[Pair]:
        index, block = row
        if len(block) != 4:
            raise BadRow(f"a block of {len(block)} lines, not 4")
        sentence, pronoun, both, correct = (decode(line).strip() for line in block)
        candidates = [candidate.strip() for candidate in both.split(",")]
        if len(candidates) != 2:
            raise BadRow(f"{len(candidates)} candidates with commas between them, not 2")
        if correct not in candidates:
            raise BadRow(f"the answer {correct!r} is not one of the candidates {both!r}")
        label = candidates.index(correct)
        example = {"sentence": sentence, "pronoun": pronoun, "candidates": candidates}
        return [(index, {**example, "label": label})]

    return file.rows(_blocks(file), parse)


def _blocks(file: File) -> Iterator[tuple[int, tuple[int, list[bytes]]]]:
    """Yields runs of lines that are not empty, (line, (index, lines))."""
    groups = itertools.groupby(file.lines(), key=lambda line: bool(line[1].strip()))
    for index, lines in enumerate(list(group) for filled, group in groups if filled):
        yield lines[0][0], (index, [line for _, line in lines])


def read_questions(file: File, split: str) -> Iterator[Pair]:
    """Reads SQuAD: its JSON file, or JSONL with a question and its answers on each line."""
    if plain_name(file.path).endswith(".jsonl"):
        return objects(file, _question_line)
    return _read_squad(file)


def _read_squad(file: File) -> Iterator[Pair]:
    whole = parse_json(file)
    questions: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {}
    try:
        for article in get(whole, "data", list):
            title = article.get("title", "")
            for paragraph in get(article, "paragraphs", list):
                shared = {"title": title, "context": get(paragraph, "context", str)}
                for question in get(paragraph, "qas", list):
                    first = questions.setdefault(get(question, "id", str), (question, shared))[0]
                    if first is not question:
                        first["answers"] += get(question, "answers", list)
    except (BadRow, AttributeError) as error:
        raise UserError(f"{file.path} is not in SQuAD's form: {error}") from None

    def parse(row: tuple[dict[str, Any], dict[str, Any]]) -> list[Pair]:
        question, shared = row
        answers = get(question, "answers", list)
        given = {
            "text": [get(answer, "text", str) for answer in answers],
            "answer_start": [get(answer, "answer_start", int) for answer in answers],
        }
        return [_question({**shared, **question, "answers": given})]

    yield from file.rows(enumerate(questions.values(), start=1), parse)


def _question_line(index: int, row: dict[str, Any]) -> list[Pair]:
    return [_question({"title": "", **row})]


def _question(row: dict[str, Any]) -> Pair:
    texts = {name: get(row, name, str) for name in ("id", "title", "context", "question")}
    answers = get(row, "answers", dict)
    found, starts = get(answers, "text", list), get(answers, "answer_start", list)
    if len(found) != len(starts):
        raise BadRow(f"{len(found)} answers with {len(starts)} starts")
    for answer, start in zip(found, starts, strict=True):
        # A few published answers differ from the context in white space or capitals only.
        place = texts["context"][max(0, start - 3) : start + len(answer) + 3]
        if answer.strip().lower() not in place.lower():
            raise BadRow(f"the answer {answer[:40]!r} is not at character {start} of its context")
    return texts["id"], {**texts, "answers": {"text": found, "answer_start": starts}}


def parse_json(file: File) -> dict[str, Any]:
    """Returns the object in a JSON file.

    Raises:
        UserError: if it is not JSON, or not an object.
    """
    try:
        whole = json.loads(file.text())
    except ValueError as error:
        raise UserError(f"{file.path} is not JSON: {error}") from None
    if not isinstance(whole, dict):
        raise UserError(f"{file.path} is not a JSON object")
    return whole
