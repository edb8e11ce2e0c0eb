"""The models that a study starts from."""

import pytest
from fake_finetuning import make_run

from moe_jax.errors import UserError
from moe_jax.finetuning.models import find_models


def test_names_are_given_or_those_of_the_directories(tmp_path):
    one, two = make_run(tmp_path / "one"), make_run(tmp_path / "a=b")
    models = find_models([one, f"ec={two}"])
    assert [(model.name, model.checkpoint) for model in models] == [("one", one), ("ec", two)]
    assert models[0].config == f"{one}/config.gin"


def test_a_relative_directory_becomes_absolute(tmp_path, monkeypatch):
    make_run(tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    assert find_models(["run"])[0].checkpoint == str(tmp_path / "run")


def test_mistakes(tmp_path):
    with pytest.raises(UserError, match=r"^which model is to be fine-tuned\?"):
        find_models([])
    with pytest.raises(UserError, match="there is no run directory"):
        find_models([str(tmp_path / "missing")])
    one, other = make_run(tmp_path / "x/run"), make_run(tmp_path / "y/run")
    with pytest.raises(UserError, match="2 checkpoints have the name 'run'"):
        find_models([one, other])
    bad = make_run(tmp_path / "my run")
    with pytest.raises(UserError, match="give one, as in --checkpoint=NAME="):
        find_models([bad])
