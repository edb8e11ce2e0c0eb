"""Prepared data sets from other people run no code when they are read."""

import json
import sys

import pytest

from moe_jax.data.sources.tfds_source import tfds_source
from moe_jax.errors import UserError

OWN = "tensorflow_datasets.core.features."


@pytest.fixture
def home(tmp_path, monkeypatch):
    """Returns a function that makes a data set with features, and a module that leaves a mark."""
    (tmp_path / "own_evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])

    def make(features, name="evil"):
        directory = tmp_path / name / "1.0.0"
        directory.mkdir(parents=True)
        info = {"name": name, "version": "1.0.0", "splits": [{"name": "train"}]}
        (directory / "dataset_info.json").write_text(json.dumps(info))
        (directory / "features.json").write_text(json.dumps(features))
        return str(tmp_path)

    yield make
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "features",
    [
        {"pythonClassName": "own_evil.Feature"},
        {"python_class_name": "own_evil.Feature"},
        {"type": "own_evil.Feature", "content": {}},
        {
            "pythonClassName": f"{OWN}features_dict.FeaturesDict",
            "featuresDict": {"features": {"text": {"pythonClassName": "own_evil.Text"}}},
        },
        {"pythonClassName": "tensorflow_datasets_evil.X"},
    ],
)
def test_classes_that_are_not_tensorflow_datasets_are_refused(home, features):
    with pytest.raises(UserError, match=r"features\.json asks for the class '.*evil"):
        tfds_source("evil", home(features))


def test_a_feature_may_be_called_type(home):
    text = {"pythonClassName": f"{OWN}text_feature.Text", "text": {}}
    features = {
        "pythonClassName": f"{OWN}features_dict.FeaturesDict",
        "featuresDict": {"features": {"type": text, "text": text}},
    }
    assert list(tfds_source("evil", home(features)).splits) == ["train"]


@pytest.mark.parametrize(
    "name",
    ["huggingface:evil/data", "kaggle:evil:1.0.0", "evil/a=True", "../evil", "evil:../1.0.0"],
)
def test_names_that_tensorflow_datasets_takes_for_code_are_refused(home, name):
    with pytest.raises(UserError, match="is no name of a prepared data set"):
        tfds_source(name, home({}))
