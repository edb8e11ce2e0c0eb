"""Files of predictions: written whole, and never over something else."""

import json
import types

import pytest

from moe_jax.errors import UserError
from moe_jax.runs.prediction_file import check_prediction_file, write_predictions

ROW = {"task": "t", "split": "validation", "index": 0, "prediction": "yes", "target": "no"}


def result(*rows):
    return types.SimpleNamespace(rows=lambda: list(rows))


def test_every_prediction_is_a_line(tmp_path):
    path = tmp_path / "predictions.jsonl"
    other = {**ROW, "index": 1, "target": "naïve\n", "scores": {"yes": float("nan")}}
    check_prediction_file(str(path))
    write_predictions(str(path), [result(ROW), result(other)])
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    # By the standard of JSON there is no NaN.
    assert rows == [ROW, {**other, "scores": {"yes": None}}]
    assert [item.name for item in tmp_path.iterdir()] == [path.name]
    # Its own kind is overwritten.
    check_prediction_file(str(path))
    write_predictions(str(path), [result(ROW)])
    assert path.read_text().count("\n") == 1


@pytest.mark.parametrize("text", ["my notes\n", '{"task": "t"}\n', "[1]\n", "\x00\xff"])
def test_other_files_are_not_overwritten(tmp_path, text):
    path = tmp_path / "notes.txt"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match="exists and is no file of predictions"):
        check_prediction_file(str(path))
    assert path.read_bytes() == text.encode("latin-1")


def test_what_cannot_be_a_file_is_refused(tmp_path):
    with pytest.raises(UserError, match="is a directory"):
        check_prediction_file(str(tmp_path))
    with pytest.raises(UserError, match="there is no directory"):
        check_prediction_file(str(tmp_path / "none" / "p.jsonl"))
    (tmp_path / "empty").touch()
    check_prediction_file(str(tmp_path / "empty"))


def test_a_file_that_cannot_be_written_is_one_line(tmp_path, monkeypatch):
    from moe_jax.runs import prediction_file

    def full(path, text):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(prediction_file, "write_atomically", full)
    with pytest.raises(UserError, match=r"cannot write --output=.*: No space left on device"):
        write_predictions(str(tmp_path / "p.jsonl"), [result(ROW)])
