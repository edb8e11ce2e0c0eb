"""The files to submit of a study."""

import io
import json
import zipfile

import fake_finetuning
import pytest
from etils import epath

from moe_jax.errors import UserError
from moe_jax.finetuning.results import summarise
from moe_jax.finetuning.submit import write_submissions


def write_predictions(tmp_path, seed, text, *others):
    path = tmp_path / f"runs/ec/glue_sst2_v002/seed_{seed}/predictions_test.jsonl"
    path.parent.mkdir(parents=True)
    row = {"task": "glue_sst2_v002", "index": 0, "idx": 0, "prediction": text, "target": "<unk>"}
    path.write_text("".join(json.dumps(line) + "\n" for line in (row, *others)))
    return path


def test_the_best_seed_of_every_task_is_submitted(tmp_path):
    write_predictions(tmp_path, 2, "negative")
    write_predictions(tmp_path, 3, "positive")
    lines = write_submissions(summarise(fake_finetuning.records()), epath.Path(tmp_path))
    (line,) = lines
    assert line.startswith(f"to submit: {tmp_path}/submission/ec/GLUE.zip; it lacks AX, CoLA")
    content = (tmp_path / "submission/ec/GLUE.zip").read_bytes()
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.read("SST-2.tsv") == b"index\tprediction\n0\t1\n"


def test_predictions_of_a_mixture_go_to_the_files_of_their_tasks(tmp_path):
    other = {"task": "super_glue_cb_v102", "index": 0, "idx": 3, "prediction": "neutral"}
    write_predictions(tmp_path, 3, "positive", {**other, "target": "<unk>"})
    write_submissions(summarise(fake_finetuning.records()), epath.Path(tmp_path))
    content = (tmp_path / "submission/ec/SuperGLUE.zip").read_bytes()
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.read("CB.jsonl") == b'{"idx": 3, "label": "neutral"}\n'


def test_nothing_is_written_without_predictions(tmp_path):
    assert write_submissions(summarise(fake_finetuning.records()), epath.Path(tmp_path)) == []
    assert list(tmp_path.iterdir()) == []


def test_something_else_is_refused(tmp_path):
    write_predictions(tmp_path, 3, "positive").write_text("{}\n")
    with pytest.raises(UserError, match="no file of predictions"):
        write_submissions(summarise(fake_finetuning.records()), epath.Path(tmp_path))
