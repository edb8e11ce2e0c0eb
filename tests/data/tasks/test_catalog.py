"""The catalog of tasks: names of the package, and tasks that a user's module registers."""

import importlib
import subprocess
import sys

import numpy as np
import pytest

from moe_jax import experiments, gin_imports
from moe_jax.config_source import ConfigSource
from moe_jax.data.config import DataConfig
from moe_jax.data.pipeline.input_pipeline import TrainBatches, eval_batches
from moe_jax.data.tasks import catalog
from moe_jax.data.tasks.registry import find_task
from moe_jax.errors import UserError

MODULE = """
import functools

import seqio
import tensorflow as tf

from moe_jax.data.tasks.vocabulary import load_vocabulary


def copied_digits(split, shuffle_files, seed=None):
    numbers = tf.data.Dataset.range(100 if split == "train" else 20)

    def example(number):
        text = tf.strings.as_string(number * 7919)
        return {"inputs": tf.strings.join(["copy: ", text]), "targets": text}

    return numbers.map(example)


def share_of_equal_lengths(targets, predictions):
    return {"lengths": sum(map(lambda t, p: len(t) == len(p), targets, predictions))}


feature = seqio.Feature(load_vocabulary("embedded"), add_eos=True, dtype=tf.int32)
seqio.TaskRegistry.add(
    "copied_digits",
    source=seqio.FunctionDataSource(copied_digits, splits=["train", "validation"]),
    preprocessors=[seqio.preprocessors.tokenize, seqio.preprocessors.append_eos_after_trim],
    output_features={"inputs": feature, "targets": feature},
    metric_fns=[share_of_equal_lengths],
)
seqio.MixtureRegistry.add("many_digits", [("copied_digits", 1.0)])
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Returns a gin file that imports a module that registers a task; it is removed afterwards."""
    import seqio

    (tmp_path / "my_task.py").write_text(MODULE)
    gin_file = tmp_path / "my.gin"
    gin_file.write_text("import my_task\nTASK = 'copied_digits'\n")
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield gin_file
    for registry, name in (
        (seqio.MixtureRegistry, "many_digits"),
        (seqio.TaskRegistry, "copied_digits"),
    ):
        if name in registry.names():
            registry.remove(name)
    sys.modules.pop("my_task", None)
    importlib.invalidate_caches()


def load(gin_file, *bindings):
    return experiments.load_data(ConfigSource((str(gin_file),), bindings))


def test_a_module_that_a_gin_file_imports_registers_a_task(module):
    assert "copied_digits" not in catalog.names()
    with gin_imports.allowing(["my_task"]):
        config = load(module, "Data.batch_size = 4", "Data.sequence_length = 32")
    assert config.task == "copied_digits"
    # It is listed with its metric, its name is known, and so are names like it.
    listed = catalog.registered_tasks()
    assert listed["copied_digits"] == listed["many_digits"] == ("share_of_equal_lengths",)
    assert {"copied_digits", "many_digits", "embedded", "glue_sst2"} <= set(catalog.names())
    assert catalog.unknown_task("copied_digits") is None
    assert catalog.unknown_task("copied_digit").endswith("Did you mean 'copied_digits'?")
    with pytest.raises(UserError, match=r"unknown task 'copied_digts'.*Did you mean 'copied_dig"):
        find_task(DataConfig(task="copied_digts"))
    # It makes batches, alone and in a mixture.
    batch = next(TrainBatches(config))
    assert batch.targets_BS.shape == (4, 32)
    vocabulary = find_task(config).provider.output_features["targets"].vocabulary
    weights = np.asarray(batch.weights_BS)
    assert 0 < weights.sum() < weights.size
    inputs = vocabulary.decode(batch.targets_BS[0][weights[0] == 0].tolist())
    assert inputs.startswith("copy: ")
    assert len(eval_batches(config)) == 5
    with gin_imports.allowing(["my_task"]):
        tasks = "TASK = {'copied_digits': 1.0, 'embedded': 2.0}"
        mixture = load(module, tasks, "Data.objective = 'prefix_lm'", "Data.batch_size = 4")
    assert next(TrainBatches(mixture)).targets_BS.any()


def test_the_module_must_be_permitted(module):
    with pytest.raises(UserError, match="add --allow_imports=my_task"):
        load(module)
    assert "my_task" not in sys.modules
    assert "copied_digits" not in catalog.registered_tasks()


def test_tasks_that_this_package_registers_are_not_listed():
    name = find_task(DataConfig()).seqio_name
    assert catalog.INTERNAL_NAME.search(name)
    assert name not in catalog.registered_tasks()


def test_plain_texts_and_registered_tasks_are_known_without_seqio():
    code = (
        "import sys; from moe_jax.data.tasks import catalog;"
        "assert catalog.unknown_task('embedded') is None and catalog.registered_tasks() == {};"
        "sys.exit(str({'seqio', 'tensorflow'} & set(sys.modules) or ''))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stderr.strip() == "", result.stderr
