"""Rows of regular and irregular files, and malformed rows."""

import subprocess
import sys

import pytest

from moe_jax.data.dataset_info import DATASETS
from moe_jax.data.prepare import glue_reader, super_glue_reader
from moe_jax.data.prepare.definite_pronoun_reader import read_definite_pronouns
from moe_jax.data.prepare.row_reader import DataFile, MalformedRowError
from moe_jax.errors import UserError

GOOD = [f"{i}\tA\tB\tentailment" for i in range(400)]


def rte(tmp_path, *rows):
    """Returns the file with good rows and those, and its examples."""
    lines = [b"index\tsentence1\tsentence2\tlabel", *(row.encode() for row in GOOD), *rows]
    (tmp_path / "train.tsv").write_bytes(b"\n".join(lines))
    file = DataFile(tmp_path / "train.tsv")
    return file, dict(glue_reader.glue_reader("rte")(file, "train"))


def test_malformed_rows_are_counted_shown_and_skipped(tmp_path):
    bad = [
        b"no tabs",
        b"1\tgr\xfc\xdfe\tB\tentailment",
        b"1\tA\tB\tmaybe",
        b"1\tA\0\tB\tentailment",
    ]
    file, examples = rte(tmp_path, b"", bad[0], *bad[1:], b"7\t\tB\t1", b"")
    assert (file.total, file.malformed, len(file.errors)) == (405, 4, 3)
    assert file.errors[0].startswith("train.tsv:403: 1 fields")
    assert file.errors[1] == "train.tsv:404: not UTF-8 text (byte 4 of the line)"
    assert file.errors[2].startswith("train.tsv:405: the label is 'maybe', not entailment or not_")
    # The index counts the rows of the file, as TFDS does, the skipped ones too.
    assert list(examples)[-1] == 404
    last = {"sentence1": "", "sentence2": "B", "label": "not_entailment", "idx": 404}
    assert examples[404] == last


def test_reading_stops_in_a_file_of_another_kind(tmp_path):
    with pytest.raises(UserError, match=r"1,000 of 1,400 rows are malformed"):
        rte(tmp_path, *[b"something else"] * 5000)


@pytest.mark.parametrize(
    ("task", "label", "known"),
    [
        ("stsb", "5.000", 5.0),
        ("stsb", "5.1", None),
        ("stsb", "nan", None),
        ("stsb", "", None),
        ("sst2", "1", "positive"),
        ("sst2", "negative", "negative"),
        ("sst2", "2", None),
        ("sst2", "-1", None),
        ("sst2", "0.5", None),
        ("wnli", "1", "entailment"),
        ("rte", "entailment", "entailment"),
        ("mnli", "-", None),
    ],
)
def test_labels(task, label, known):
    if known is None:
        with pytest.raises(MalformedRowError, match="the label is"):
            glue_reader.read_label(DATASETS[f"glue/{task}"].labels, label)
    else:
        assert glue_reader.read_label(DATASETS[f"glue/{task}"].labels, label) == known


@pytest.mark.parametrize(
    ("config", "line", "reason"),
    [
        ("cb", "{", "not JSON"),
        ("cb", "[1]", "not a JSON object"),
        ("cb", '{"premise": "p", "hypothesis": 3, "idx": 0}', "'hypothesis' is int, not str"),
        ("cb", '{"premise": "p", "hypothesis": "h", "idx": 0}', "no field 'label'"),
        ("cb", '{"premise": "p", "hypothesis": "h", "idx": 0, "label": 1}', "the label is 1"),
        ("boolq", '{"question": "q", "passage": "p", "idx": true, "label": 1}', "'idx' is bool"),
        ("boolq", '{"question": "q", "passage": "p", "idx": 1, "label": 2}', "the label is 2"),
        ("multirc", '{"idx": 1, "passage": {"text": "t"}}', "no field 'questions'"),
        ("wsc", '{"text": "t", "idx": 0}', "no field 'target'"),
    ],
)
def test_malformed_json_rows(tmp_path, config, line, reason):
    (tmp_path / "train.jsonl").write_text(line + "\n")
    with pytest.raises(UserError, match="1 of 1 rows") as error:
        list(super_glue_reader.read(config, DataFile(tmp_path / "train.jsonl"), "train"))
    assert f"train.jsonl:1: {reason}" in str(error.value) or reason in str(error.value)


def test_an_index_that_comes_twice_is_malformed(tmp_path):
    row = '{"question": "q", "passage": "p", "idx": 1, "label": true}\n'
    (tmp_path / "train.jsonl").write_text(row * 2)
    with pytest.raises(UserError, match=r"train.jsonl:2: index 1 was there before"):
        list(super_glue_reader.read("boolq", DataFile(tmp_path / "train.jsonl"), "train"))


@pytest.mark.parametrize(
    ("block", "reason"),
    [
        ("Ann won.\nshe\nAnn,Bo\n", "a block of 3 lines"),
        ("Ann won.\nshe\nAnn\nAnn\n", "1 candidates"),
        ("Ann won.\nshe\nAnn,Bo\nCy\n", "'Cy' is not one of"),
    ],
)
def test_malformed_pronouns(tmp_path, block, reason):
    (tmp_path / "test.c.txt").write_text(block)
    with pytest.raises(UserError, match=f"test.c.txt:1: .*{reason}"):
        list(read_definite_pronouns(DataFile(tmp_path / "test.c.txt"), "test"))


def test_importing_the_command_does_not_import_tensorflow():
    code = (
        "import sys, moe_jax.commands.data.prepare as p; p.find_dataset_spec('glue_sst2');"
        "assert not {'tensorflow', 'tensorflow_datasets', 'seqio', 'jax'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
