"""Modules that are loaded by the import of TensorFlow."""

import subprocess
import sys

import pytest

CODE = """
import sys
from moe_jax.data import import_tensorflow

import_tensorflow.load_libraries()
loaded = open("/proc/self/maps").read() if sys.platform == "linux" else "libtensorflow_cc"
assert "libtensorflow_cc" in loaded
import_tensorflow.get_ready_for_threads()
assert "tensorflow" not in sys.modules
from etils import epy

# Replaces `__import__` for all threads: not to be used while another thread works.
epy.lazy_imports = lambda **_: sys.exit("imports are made lazy")
from moe_jax.data.pipeline import input_pipeline
from moe_jax.data.config import DataConfig

next(input_pipeline.TrainBatches(DataConfig(batch_size=1, sequence_length=32)))
heavy = {"keras", "sklearn", "matplotlib"} & set(sys.modules)
assert not heavy, heavy
import tensorflow as tf
import tensorflow_text

assert tf.keras.layers.Dense.__name__ == "Dense"
assert issubclass(tensorflow_text.keras.layers.ToDense, tf.keras.layers.Layer)
"""


@pytest.mark.slow
def test_tensorflow_comes_without_keras_and_disturbs_no_other_thread():
    result = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-2000:]
