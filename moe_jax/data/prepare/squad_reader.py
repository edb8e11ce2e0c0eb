"""Reads SQuAD 1.1."""

import json
from collections.abc import Iterator
from typing import Any

from moe_jax.data.prepare.file_layout import plain_name
from moe_jax.data.prepare.jsonl_reader import get_field, read_objects
from moe_jax.data.prepare.row_reader import DataFile, KeyedExample, MalformedRowError
from moe_jax.errors import UserError


def read_squad(file: DataFile, split: str) -> Iterator[KeyedExample]:
    """Reads SQuAD: its JSON file, or JSONL with a question and its answers on each line."""
    if plain_name(file.path).endswith(".jsonl"):
        return read_objects(file, _question_line)
    return _read_squad_json(file)


def _read_squad_json(file: DataFile) -> Iterator[KeyedExample]:
    whole = parse_json(file)
    questions: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {}
    try:
        for article in get_field(whole, "data", list):
            title = article.get("title", "")
            for paragraph in get_field(article, "paragraphs", list):
                shared = {"title": title, "context": get_field(paragraph, "context", str)}
                for question in get_field(paragraph, "qas", list):
                    first = questions.setdefault(
                        get_field(question, "id", str), (question, shared)
                    )[0]
                    if first is not question:
                        first["answers"] += get_field(question, "answers", list)
    except (MalformedRowError, AttributeError) as error:
        raise UserError(f"{file.path} is not in SQuAD's form: {error}") from None

    def parse(row: tuple[dict[str, Any], dict[str, Any]]) -> list[KeyedExample]:
        question, shared = row
        answers = get_field(question, "answers", list)
        given = {
            "text": [get_field(answer, "text", str) for answer in answers],
            "answer_start": [get_field(answer, "answer_start", int) for answer in answers],
        }
        return [_question({**shared, **question, "answers": given})]

    yield from file.rows(enumerate(questions.values(), start=1), parse)


def _question_line(index: int, row: dict[str, Any]) -> list[KeyedExample]:
    return [_question({"title": "", **row})]


def _question(row: dict[str, Any]) -> KeyedExample:
    texts = {name: get_field(row, name, str) for name in ("id", "title", "context", "question")}
    answers = get_field(row, "answers", dict)
    found, starts = get_field(answers, "text", list), get_field(answers, "answer_start", list)
    if len(found) != len(starts):
        raise MalformedRowError(f"{len(found)} answers with {len(starts)} starts")
    for answer, start in zip(found, starts, strict=True):
        # A few published answers differ from the context in white space or capitals.
        place = texts["context"][max(0, start - 3) : start + len(answer) + 3]
        if answer.strip().lower() not in place.lower():
            raise MalformedRowError(
                f"the answer {answer[:40]!r} is not at character {start} of its context"
            )
    return texts["id"], {**texts, "answers": {"text": found, "answer_start": starts}}


def parse_json(file: DataFile) -> dict[str, Any]:
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
