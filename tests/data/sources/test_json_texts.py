"""The texts of JSON files of any layout, and the errors of damaged ones."""

import gzip
import json
import random

import pytest

from moe_jax.data.sources import file_reader, json_texts
from moe_jax.data.sources.file_reader import FileReader, UnusableFileError
from moe_jax.data.sources.json_texts import JsonTexts


@pytest.fixture(autouse=True, params=[64, 1 << 22])
def blocks(request, monkeypatch):
    """Returns the size of the blocks of a read, so that small files have many."""
    monkeypatch.setattr(file_reader, "BLOCK", request.param)
    monkeypatch.setattr(json_texts, "_HEAD", 10 * request.param)
    return request.param


def texts(path, field="text"):
    """Returns the texts of a file, and what is said about those that are left out."""
    read = JsonTexts(FileReader(str(path)).blocks(), field)
    found = [text.decode() for text in read]
    return found, read.note()


def problem(path, content, field="text"):
    path.write_bytes(content)
    with pytest.raises(UnusableFileError) as error:
        texts(path, field)
    assert "\n" not in str(error.value)
    return str(error.value)


def write(path, rows, pack=False):
    content = "".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows).encode()
    path.write_bytes(gzip.compress(content) if pack else content)
    return path


LINES = ["plain", 'a "quote"\n\ttab \\ / \u00e9', "\u9be8\U0001f40b", "line\u2028separator", ""]


def test_texts_are_taken_as_they_are(tmp_path):
    path = write(tmp_path / "a.jsonl", [{"id": i, "text": t} for i, t in enumerate(LINES)])
    assert texts(path) == (LINES, None)
    raw = "".join(json.dumps({"text": t}, ensure_ascii=False) + "\n" for t in LINES)
    (tmp_path / "raw.jsonl").write_text(raw, "utf-8")
    assert texts(tmp_path / "raw.jsonl") == (LINES, None)


def forms(rows):
    """Returns a JSON text of objects in each form that is read."""
    dumped = [json.dumps(row, ensure_ascii=False) for row in rows]
    return {
        "lines": "\n".join(dumped),
        "lines of Windows": "\r\n".join(dumped) + "\r\n",
        "carriage returns": "\r".join(dumped),
        "array": json.dumps(rows),
        "array over lines": json.dumps(rows, indent=1),
        "an element a line": "[\n" + ",\n".join(dumped) + "\n]\n",
        "indented objects": "\n".join(json.dumps(row, indent=2) for row in rows),
        "one after the other": "".join(dumped),
        "arrays": json.dumps(rows[:2]) + "\n" + json.dumps(rows[2:]),
        "with spaces": "\n\n  " + " \n\n".join(dumped) + "\n \n",
    }


@pytest.mark.parametrize("form", forms([{}] * 3))
def test_every_form_of_json(tmp_path, form):
    rng = random.Random(0)
    rows = [{"n": i, "text": rng.choice(LINES) * rng.randint(1, 9)} for i in range(60)]
    content = forms(rows)[form]
    for mark in ("", "\ufeff"):
        (tmp_path / "a.json").write_bytes((mark + content).encode())
        assert texts(tmp_path / "a.json") == ([row["text"] for row in rows], None)


def test_one_object_a_file(tmp_path):
    for indent in (None, 1):
        (tmp_path / "a.json").write_text(json.dumps({"text": "alone"}, indent=indent))
        assert texts(tmp_path / "a.json") == (["alone"], None)


def test_escapes_and_surrogates(tmp_path):
    """A pair of surrogates is a character; one alone is none and is replaced."""
    rows = ['{"text": "\\ud83d\\udc0b \\u9be8 \\n"}', '{"text": "a\\ud83d b"}']
    (whole, lone), note = texts(write(tmp_path / "a.jsonl", rows))
    assert whole == "\U0001f40b \u9be8 \n"
    assert lone in ("a? b", "a\ufffd b")
    assert note is None


def test_a_field_within_a_field(tmp_path):
    rows = [{"doc": {"body": {"en": f"t{i}"}}, "doc.body": "wrong"} for i in range(3)]
    path = write(tmp_path / "a.jsonl", rows)
    assert texts(path, "doc.body.en")[0] == ["t0", "t1", "t2"]


def test_numbers_beside_the_text_may_have_any_length(tmp_path):
    lines = '{"id": ' + "1" * 5000 + ', "text": "a"}\n{"id": 1, "text": "b"}\n'
    (tmp_path / "a.jsonl").write_text(lines)
    assert texts(tmp_path / "a.jsonl") == (["a", "b"], None)


def test_gzip_and_blank_lines(tmp_path):
    rows = [{"text": "a"}, "", "   ", {"text": "b"}, "\t"]
    assert texts(write(tmp_path / "a.jsonl.gz", rows, pack=True)) == (["a", "b"], None)


BAD = [
    ('{"text": "cut off', "Invalid control character|Unterminated string"),
    ('{"txt": "other"}', "no field 'text'; it has: txt"),
    ('{"text": 5}', "field 'text' is no text but int"),
    ('["text"]', "no field 'text'; it has: no object"),
    ("not JSON", "Expecting value"),
    ('{"text": "\udce9"}', "invalid|can't decode"),
    ("[" * 100_000, "brackets"),
]


@pytest.mark.parametrize(("line", "reason"), BAD, ids=[reason for _, reason in BAD])
def test_bad_lines_are_counted_and_the_first_is_named(tmp_path, line, reason):
    rows = [json.dumps({"text": str(i)}) for i in range(200)]
    lines = "\n".join([*rows[:6], line, *rows[6:-1], line])
    (tmp_path / "a.jsonl").write_bytes(lines.encode("utf-8", "surrogateescape"))
    found, note = texts(tmp_path / "a.jsonl")
    assert found == [str(i) for i in range(199)]
    start = "2 of 201 lines are left out (the first: line 7: "
    assert note.startswith(start)
    assert "\n" not in note
    assert any(part in note for part in reason.split("|")), note


@pytest.mark.parametrize(("good", "refused"), [(199, False), (197, True), (0, True)])
def test_more_than_one_in_a_hundred_is_refused(tmp_path, good, refused):
    path = write(tmp_path / "a.jsonl", [*[{"text": "x"}] * good, "bad", "bad"])
    if not refused:
        assert len(texts(path)[0]) == good
        return
    message = problem(path, path.read_bytes())
    assert f"has no text in the field 'text' in 2 of {good + 2} lines (the first: line" in message
    assert "jsonl:FILES#" in message


def test_elements_without_the_field_are_counted_too(tmp_path):
    rows = [{"text": "x"}] * 200
    (tmp_path / "a.json").write_text(json.dumps([*rows, {"body": "y"}]))
    found, note = texts(tmp_path / "a.json")
    assert len(found) == 200
    assert note == (
        "1 of 201 objects are left out (the first: object 201: no field 'text'; it has: body)"
    )


def test_what_is_damaged_is_named_with_its_place(tmp_path):
    path = tmp_path / "a.json"
    array = json.dumps([{"text": f"number {i}"} for i in range(30)]).encode()
    second = len(b'[{"text": "number 0"}, ')
    assert problem(path, array[: second + 8]).startswith(
        f"ends too early or is damaged: object 2, from byte {second} on"
    )
    assert f"its array is not closed at byte {len(array) - 1}" in problem(path, array[:-1])
    assert "there is no comma before byte" in problem(path, array.replace(b"}, {", b"} {", 1))
    place = array.index(b"number 7")
    assert f"(byte {place})" in problem(path, array[:place] + b"\xff" + array[place:])
    packed = gzip.compress(array)
    assert "the gzip data stop at byte" in problem(path, packed[:-9])
    assert "is UTF-16" in problem(path, array.decode().encode("utf-16"))
    for empty in (b"", b" \n \n", b"[]", b"\xef\xbb\xbf"):
        assert "has no " in problem(path, empty)


def test_a_damaged_value_is_not_searched_for_its_end_for_ever(tmp_path, monkeypatch, blocks):
    monkeypatch.setattr(json_texts, "_MAX_VALUE_CHARS", 2000)
    content = b'[{"text": "a"}, {"text": "b' + b"x" * 100_000
    assert "object 2, from byte 16 on" in problem(tmp_path / "a.json", content)
