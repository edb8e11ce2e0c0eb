"""Restoring an untrusted checkpoint executes no code, whatever its files contain."""

import ast
import json
import os
import pickle
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny
from etils import epath

from moe_jax.errors import UserError
from moe_jax.evaluation.complexity import read_order, read_vectors
from moe_jax.models.functional import LanguageModel
from moe_jax.routers.expert_choice import ExpertChoice
from moe_jax.training.checkpointing.checkpoint_manager import CheckpointManager

# Orbax leaves coroutines behind that complain when they are collected.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

GOLDEN = Path(__file__).parents[2] / "golden" / "format_2" / "checkpoints"
SHAPE = {"d_model": 8, "d_ff": 8, "num_heads": 2, "head_dim": 4, "num_experts": 2, "num_layers": 2}
# What Python says when something is unpickled, run, or started.
ALARMS = ("pickle.find_class", "marshal.loads", "os.system", "subprocess.Popen", "os.posix_spawn")
_watched: list[list[str]] = []


def _hook(event, arguments, alarms=ALARMS, watched=_watched):
    # Its defaults are there when the interpreter ends, too.
    if event in alarms:
        for seen in watched:
            seen.append(event)


@pytest.fixture(scope="module")
def hook():
    """Installs one audit hook for the module, since hooks cannot be removed."""
    sys.addaudithook(_hook)


@pytest.fixture
def alarms(hook):
    """Returns the list of what was unpickled or started during a test."""
    seen: list[str] = []
    _watched.append(seen)
    yield seen
    _watched.remove(seen)


class Evil:
    """Makes a file when it is unpickled."""

    def __init__(self, mark):
        self.mark = str(mark)

    def __reduce__(self):
        return (os.mkdir, (self.mark,))


@pytest.fixture
def payload(tmp_path):
    """Returns a pickle that makes tmp_path / "ran"."""
    yield pickle.dumps(Evil(tmp_path / "ran"))
    assert not (tmp_path / "ran").exists()


def edit(path, change):
    """Changes the JSON of a file."""
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def name_handlers(step, payload):
    """Names classes of other modules for every item."""
    names = {"variables": "antigravity.Handler", "meta": "os.system", "evil": "subprocess.Popen"}
    edit(step / "_CHECKPOINT_METADATA", lambda value: value["item_handlers"].update(names))
    (step / "evil").mkdir()
    (step / "evil" / "commit_success.txt").write_text("")
    (step / "evil" / "payload").write_bytes(payload)


def name_types(step, payload):
    """Names classes of other modules for every array."""

    def change(value):
        for entry in value["tree_metadata"].values():
            entry["value_metadata"]["value_type"] = "antigravity.Array"

    edit(step / "variables" / "_METADATA", change)


def without_metadata(step, payload):
    (step / "variables" / "_METADATA").unlink()


def msgpack_objects(step, payload):
    """An array of Python objects in the file that Orbax once kept whole trees in."""
    import msgpack

    without_metadata(step, payload)
    array = msgpack.ExtType(1, msgpack.packb(((1,), "O", payload)))
    (step / "variables" / "checkpoint").write_bytes(msgpack.packb({"params": array}))


def pickles_for_files(step, payload):
    for path in (step / "variables").rglob("*"):
        if path.is_file() and path.name != "_METADATA":
            path.write_bytes(payload)


def zarr_objects(step, payload):
    """Arrays of Python objects, with the codec that unpickles them, in zarr's own files."""
    variables = step / "variables"
    tree = json.loads((variables / "_METADATA").read_text())["tree_metadata"]
    for path in variables.iterdir():
        shutil.rmtree(path) if path.is_dir() else None
    (variables / "manifest.ocdbt").unlink()
    edit(variables / "_METADATA", lambda value: value.update(use_ocdbt=False, use_zarr3=False))
    for name, entry in tree.items():
        directory = variables / ".".join(ast.literal_eval(name))
        directory.mkdir(parents=True)
        shape = entry["value_metadata"]["write_shape"]
        about = {"zarr_format": 2, "shape": shape, "chunks": shape, "dtype": "|O", "order": "C"}
        about |= {"compressor": None, "fill_value": None, "filters": [{"id": "pickle"}]}
        (directory / ".zarray").write_text(json.dumps(about))
        (directory / ".".join("0" * len(shape))).write_bytes(payload)


HARMLESS = [name_handlers, name_types, without_metadata]
REFUSED = [msgpack_objects, pickles_for_files, zarr_objects]


@pytest.fixture(scope="module")
def model():
    return LanguageModel(tiny.config(**SHAPE), ExpertChoice(2.0))


def restore(directory, model):
    checkpoints = CheckpointManager(epath.Path(directory))
    try:
        return checkpoints.restore_variables(3, model)
    finally:
        checkpoints.close()


@pytest.fixture
def copied(tmp_path):
    """Returns a copy of a stored checkpoint."""
    shutil.copytree(GOLDEN, tmp_path / "checkpoints")
    return tmp_path / "checkpoints"


@pytest.mark.parametrize("change", HARMLESS)
def test_names_of_classes_in_a_checkpoint_are_not_looked_at(copied, model, payload, alarms, change):
    pristine = restore(copied, model)
    before = set(sys.modules)
    change(copied / "3", payload)
    variables = restore(copied, model)
    for name, expected in pristine.params.items():
        np.testing.assert_array_equal(variables.params[name], expected)
    assert alarms == []
    assert "antigravity" not in set(sys.modules) - before


@pytest.mark.parametrize("change", REFUSED)
def test_pickles_and_arrays_of_objects_are_refused(copied, model, payload, alarms, change):
    change(copied / "3", payload)
    with pytest.raises(UserError, match="does not fit this configuration, or is damaged") as error:
        restore(copied, model)
    assert "\n" not in str(error.value)
    assert alarms == []


def test_meta_that_is_no_json_is_refused(copied, model, payload, alarms):
    (copied / "3" / "meta" / "metadata").write_bytes(payload)
    with pytest.raises(UserError, match="is damaged"):
        restore(copied, model)
    assert alarms == []


def test_orders_of_objects_are_refused(tmp_path, payload, alarms):
    """The order of a curriculum, and the scores it was made from, are numpy's files."""
    array = np.empty(1, object)
    array[0] = Evil(tmp_path / "ran")
    for name in ("order.npy", "part_0.npy"):
        np.save(tmp_path / name, array, allow_pickle=True)
    for read in (read_order, read_vectors):
        with pytest.raises(ValueError, match="allow_pickle=False"):
            read(epath.Path(tmp_path))
    (tmp_path / "order.npy").write_bytes(payload)
    with pytest.raises(ValueError, match="pickled"):
        read_order(epath.Path(tmp_path))
    assert alarms == []


def test_the_alarm_rings(tmp_path, alarms):
    """The control: unpickling the payload is noticed, and would leave its mark."""
    pickle.loads(pickle.dumps(Evil(tmp_path / "ran")))
    assert alarms == ["pickle.find_class"]
    assert (tmp_path / "ran").exists()
