"""A task of another vocabulary than the run's is refused; a copy of the same file is not."""

import hashlib
import json
import types

import pytest
import task_data
from etils import epath

from moe_jax.errors import UserError
from moe_jax.runs.run_vocabulary import check_run_vocabulary


@pytest.fixture
def made(tmp_path):
    """Returns a run that was trained with the vocabulary `one`, and a maker of tasks."""
    for name in ("one", "same", "other"):
        (tmp_path / f"{name}.model").write_bytes(b"two" if name == "other" else b"one")

    def write(task="'glue_sst2'", **record):
        (tmp_path / "config.gin").write_text(f"Data.task = {task}\nData.vocabulary = 'one.model'\n")
        (tmp_path / "run.json").write_text(json.dumps(record))
        return types.SimpleNamespace(directory=epath.Path(tmp_path))

    def task(name):
        own = types.SimpleNamespace(sentencepiece_model_file=str(tmp_path / f"{name}.model"))
        return task_data.make_task([("is it", "so")], vocabulary=own)

    return write, task


DIGEST = hashlib.sha256(b"one").hexdigest()


def test_vocabularies_are_compared_by_their_contents(made):
    write, task = made
    run = write(vocabulary_digest=DIGEST)
    check_run_vocabulary(run, task("one"))
    check_run_vocabulary(run, task("same"))
    with pytest.raises(UserError) as caught:
        check_run_vocabulary(run, task("other"))
    message = str(caught.value)
    assert "task a_task is tokenised with another vocabulary" in message
    assert "other.model" in message
    assert "Data.vocabulary = 'one.model'" in message
    assert "\n" not in message


@pytest.mark.parametrize("name", ["'text:a.txt'", "{'glue_rte': 1, 'glue': 2}", "'embedded'"])
def test_runs_on_any_of_the_packages_tasks_are_compared(made, name):
    write, task = made
    with pytest.raises(UserError, match="another vocabulary"):
        check_run_vocabulary(write(name, vocabulary_digest=DIGEST), task("other"))


def test_what_is_not_known_is_not_compared(made):
    write, task = made
    check_run_vocabulary(write(), task("other"))
    check_run_vocabulary(write("'own_task'", vocabulary_digest=DIGEST), task("other"))
    without = task_data.make_task([("is it", "so")])
    check_run_vocabulary(write(vocabulary_digest=DIGEST), without)
