"""Files of prompts and of generated texts: what is read, written and refused."""

import json

import pytest

from moe_jax.errors import UserError
from moe_jax.runs.generation import GeneratedText
from moe_jax.runs.prompt_files import check_output, read_prompts, write_texts

TEXTS = [
    GeneratedText(0, 0, "The whale", " swims\n", 3, True, None),
    GeneratedText(0, 1, "The whale", " \N{WHALE}", 5, False, -1.5),
]


def test_lines_are_prompts(tmp_path):
    (tmp_path / "prompts.txt").write_bytes(b"\xef\xbb\xbfThe whale\r\n\n  Call me \ncaf\xc3\xa9")
    assert read_prompts(str(tmp_path / "prompts.txt")) == ["The whale", "  Call me ", "café"]


def test_json_lines_are_prompts(tmp_path):
    (tmp_path / "p.jsonl").write_text('{"prompt": "a\\nb", "id": 3}\n\n{"prompt": ""}\n')
    assert read_prompts(str(tmp_path / "p.jsonl")) == ["a\nb", ""]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("p.txt", None, r"there is no file .*p\.txt"),
        ("p.txt", b"", r"p\.txt has no prompts; it needs one per line"),
        ("p.jsonl", b"\n \n", r"p\.jsonl has no prompts"),
        ("p.txt", b"abc\xe9 au lait", r"p\.txt is not UTF-8 text \(byte 3\)"),
        ("p.jsonl", b'{"prompt": "a"}\n{"prompt"\n', r"p\.jsonl, line 2 is not JSON"),
        ("p.jsonl", b'{"text": "a"}', r'line 1 is not an object with a text "prompt"'),
        ("p.jsonl", b"[3]", r'line 1 is not an object with a text "prompt"'),
        ("p.jsonl", b'{"prompt": 3}', r'line 1 is not an object with a text "prompt"'),
    ],
)
def test_files_without_prompts_are_refused(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        read_prompts(str(tmp_path / name))
    assert "\n" not in str(error.value)


def test_texts_are_json_lines_and_may_be_replaced(tmp_path):
    path = str(tmp_path / "texts.jsonl")
    check_output(path)
    write_texts(path, TEXTS)
    check_output(path)
    write_texts(path, TEXTS)
    lines = (tmp_path / "texts.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == [
        {
            "prompt_index": 0,
            "sample_index": 0,
            "prompt": "The whale",
            "text": " swims\n",
            "tokens": 3,
            "ended": True,
            "score": None,
        },
        {
            "prompt_index": 0,
            "sample_index": 1,
            "prompt": "The whale",
            "text": " \N{WHALE}",
            "tokens": 5,
            "ended": False,
            "score": -1.5,
        },
    ]
    assert [file.name for file in tmp_path.iterdir()] == ["texts.jsonl"]


@pytest.mark.parametrize("content", ["", "notes\n", '{"prompt": "a"}\n', "3\n", "[1]\n"])
def test_a_file_of_something_else_is_kept(tmp_path, content):
    path = tmp_path / "notes.jsonl"
    path.write_text(content)
    with pytest.raises(UserError, match="exists and is not a file of generated texts"):
        check_output(str(path))
    assert path.read_text() == content


def test_places_where_nothing_can_be_written_are_refused(tmp_path):
    with pytest.raises(UserError, match="is a directory; name a file in it"):
        check_output(str(tmp_path))
    with pytest.raises(UserError, match="there is no directory"):
        check_output(str(tmp_path / "none" / "a.jsonl"))
    with pytest.raises(UserError, match="cannot write"):
        write_texts(str(tmp_path / "none" / "a.jsonl"), TEXTS)
