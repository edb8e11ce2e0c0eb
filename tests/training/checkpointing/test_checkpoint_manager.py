"""Checkpoints: retention, damage, failed saves, and older formats."""

import dataclasses
import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
import tiny
from etils import epath
from tiers import mostly_slow

from moe_jax.errors import UserError
from moe_jax.models.functional import Variables
from moe_jax.routers.expert_choice import ExpertChoice
from moe_jax.training.checkpointing.checkpoint_config import CheckpointConfig
from moe_jax.training.checkpointing.checkpoint_manager import CheckpointManager
from moe_jax.training.optimizers import adafactor, adamw
from moe_jax.training.schedules import inverse_square_root
from moe_jax.training.state import make_state
from moe_jax.training.step import LossConfig, make_train_step

GOLDEN = Path(__file__).parents[2] / "golden" / "format_2"
SHAPE = {"d_model": 8, "d_ff": 8, "num_heads": 2, "head_dim": 4, "num_experts": 2, "num_layers": 2}
OPTIMIZER = adamw(inverse_square_root(1e-2, 10))


class Position:
    """A checkpointable object whose state is a number in a file."""

    def __init__(self, value=0):
        self.value = value

    def save(self, directory):
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "place.txt").write_text(str(self.value))

    def restore(self, directory):
        self.value = int((directory / "place.txt").read_text())


@pytest.fixture(scope="module")
def model():
    return tiny.make(ExpertChoice(2.0), **SHAPE)[0]


@pytest.fixture(scope="module")
def step(model):
    return make_train_step(model, OPTIMIZER, LossConfig())


def trained(step, model, steps, state=None):
    state = make_state(model, OPTIMIZER, 0) if state is None else state
    for _ in range(steps):
        batch = tiny.make_batch(2, 8, seed=int(state.step))
        state, metrics = step(state, batch)
    return state, metrics


def same(first, second):
    pairs = zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True)
    return all(np.array_equal(a, b) for a, b in jax.device_get(list(pairs)))


@pytest.fixture(scope="module")
def saved(tmp_path_factory, model, step):
    """A directory with checkpoints of steps 1, 2 and 3."""
    directory = epath.Path(tmp_path_factory.mktemp("run")) / "checkpoints"
    checkpoints = CheckpointManager(directory, CheckpointConfig(every=1))
    state = None
    for number in (1, 2, 3):
        state, _ = trained(step, model, 1, state)
        checkpoints.save(number, state, Position(number))
    checkpoints.close()
    return directory


@pytest.fixture
def copy(saved, tmp_path):
    target = tmp_path / "checkpoints"
    shutil.copytree(saved, target)
    return epath.Path(target)


def restore(directory, model, optimizer=OPTIMIZER):
    lines, place = [], Position()
    checkpoints = CheckpointManager(directory, CheckpointConfig(every=1), report=lines.append)
    try:
        return *checkpoints.restore(model, optimizer, place), place.value, lines
    finally:
        checkpoints.close()


def data_files(directory, item):
    return [p for p in Path(directory / item).rglob("*") if p.is_file() and p.parent.name == "d"]


def remove(directory, item):
    for path in data_files(directory, item):
        path.unlink()


def test_what_is_restored_is_what_was_saved(copy, model, step):
    number, state, place, lines = restore(copy, model)
    assert (number, place, lines) == (3, 3, [])
    assert same(state, trained(step, model, 3)[0])


def test_nothing_is_written_or_moved_once_the_directory_is_anothers(copy, model, step):
    def refuse():
        raise UserError("it is another's")

    remove(copy / "3", "variables")
    checkpoints = CheckpointManager(copy, CheckpointConfig(every=1), check=refuse)
    state, _ = trained(step, model, 4)
    before = sorted(Path(copy.parent).rglob("*"))
    for write in (
        lambda: checkpoints.save(4, state, Position()),
        lambda: checkpoints.restore(model, OPTIMIZER, Position()),
    ):
        with pytest.raises(UserError, match="it is another's"):
            write()
    checkpoints.close()
    assert sorted(Path(copy.parent).rglob("*")) == before


@pytest.mark.parametrize("item", mostly_slow(["variables", "optimizer"]))
@pytest.mark.parametrize("damage", ["bits", "cut", "gone"])
def test_damage_falls_back_to_the_checkpoint_before(copy, model, step, item, damage):
    for path in data_files(copy / "3", item):
        contents = bytearray(path.read_bytes())
        if damage == "bits":
            middle = len(contents) // 2
            contents[middle : middle + 32] = bytes(v ^ 0x5A for v in contents[middle:][:32])
            path.write_bytes(contents)
        elif damage == "cut":
            path.write_bytes(contents[: len(contents) // 2])
        else:
            path.unlink()
    number, state, place, (line,) = restore(copy, model)
    assert (number, place) == (2, 2)
    assert line.startswith("checkpoint 3 is damaged (")
    assert line.endswith("going on from step 2")
    assert same(state, trained(step, model, 2)[0])
    # It is out of the way, and not lost.
    assert sorted(p.name for p in copy.iterdir() if p.name.isdigit()) == ["1", "2"]
    assert len(list((copy.parent / "damaged").iterdir())) == 1


def test_a_save_that_was_cut_off_is_no_checkpoint(copy, model):
    """An incomplete checkpoint has another name; the next save of that step succeeds."""
    cut = copy / "4.orbax-checkpoint-tmp"
    shutil.copytree(copy / "3", cut)
    remove(cut, "optimizer")
    step, state, value, lines = restore(copy, model)
    assert (step, int(state.step), value, lines) == (3, 3, 3, [])
    checkpoints = CheckpointManager(copy, CheckpointConfig(every=1))
    checkpoints.save(4, dataclasses.replace(state, step=state.step + 1), Position(4))
    checkpoints.close()
    assert restore(copy, model)[0] == 4


def test_a_damaged_position_or_description_counts(copy, model):
    (copy / "3" / "data" / "place.txt").write_text("?")
    for path in Path(copy / "2" / "meta").rglob("*"):
        if path.is_file():
            path.write_text("{")
    number, _, place, lines = restore(copy, model)
    assert (number, place) == (1, 1)
    assert [line.split(" (")[0] for line in lines] == [
        "checkpoint 3 is damaged",
        "checkpoint 2 is damaged",
    ]


def test_a_changed_number_is_damage_even_where_it_can_be_read(copy, model):
    """Arrays of another run in place of this one's: readable, and not what was saved."""
    shutil.rmtree(copy / "3" / "variables")
    shutil.copytree(copy / "2" / "variables", copy / "3" / "variables")
    number, _, _, (line,) = restore(copy, model)
    assert number == 2
    assert "is not what was saved" in line


@pytest.mark.slow
def test_nothing_left_is_an_error_that_says_where_things_are(copy, model):
    for number in ("1", "2", "3"):
        remove(copy / number, "variables")
    with pytest.raises(
        UserError, match=r"all 3 checkpoints in .* were damaged; they are in .*damaged"
    ):
        restore(copy, model)


def test_reading_a_damaged_checkpoint_names_the_others(copy, model):
    remove(copy / "3", "variables")
    checkpoints = CheckpointManager(copy)
    with pytest.raises(UserError, match=r"checkpoint 3 .* is damaged .*others: 1, 2"):
        checkpoints.restore_variables(3, model)
    assert checkpoints.restore_variables(2, model).params
    checkpoints.close()


def test_another_model_or_optimiser_is_no_damage(copy, model):
    wider = tiny.make(ExpertChoice(2.0), **{**SHAPE, "d_ff": 16})[0]
    with pytest.raises(UserError, match=r"does not fit .*/wi: float32\[.*8\] -> float32\[.*16\]"):
        restore(copy, wider)
    with pytest.raises(UserError, match="does not fit this configuration"):
        restore(copy, model, adafactor(inverse_square_root(1e-2, 10)))
    assert sorted(p.name for p in copy.iterdir() if p.name.isdigit()) == ["1", "2", "3"]


def test_what_is_kept(tmp_path, model, step):
    """The last two, every fourth, and the best of those that were evaluated."""
    config = CheckpointConfig(every=1, keep=2, keep_every=4, keep_best=1)
    checkpoints = CheckpointManager(epath.Path(tmp_path) / "checkpoints", config)
    state, losses = make_state(model, OPTIMIZER, 0), {2: 3.0, 3: 1.0, 5: 2.0}
    for number in range(1, 10):
        metrics = {"causal_loss": losses[number]} if number in losses else None
        checkpoints.save(number, state, Position(), metrics=metrics)
    checkpoints.wait()
    assert checkpoints.steps() == [3, 4, 8, 9]
    checkpoints.close()


def test_the_best_by_a_score_of_the_task(tmp_path, model):
    """The highest, and its step is found again from what was saved, also by another metric."""
    config = CheckpointConfig(every=1, keep=1, keep_best=1, best_is="task/accuracy")
    directory = epath.Path(tmp_path) / "checkpoints"
    checkpoints = CheckpointManager(directory, config)
    state, scores = make_state(model, OPTIMIZER, 0), {1: 0.5, 2: 0.75, 3: 0.25, 4: 0.5}
    for number, score in scores.items():
        metrics = {"causal_loss": float(number), "task/accuracy": score}
        checkpoints.save(number, state, Position(), metrics=metrics)
    checkpoints.save(5, state, Position())
    checkpoints.wait()
    assert checkpoints.steps() == [2, 5]
    checkpoints.close()
    reader = CheckpointManager(directory)
    assert reader.metrics() == {2: {"causal_loss": 2.0, "task/accuracy": 0.75}}
    assert config.ranking.best(reader.metrics()) == 2
    reader.close()


def test_the_best_is_kept_by_a_process_that_goes_on(tmp_path, model):
    """It did not make the evaluations of the first one, and knows them from the checkpoints."""
    config = CheckpointConfig(every=1, keep=1, keep_best=1)
    state = make_state(model, OPTIMIZER, 0)
    for numbers in ((1, 2), (3, 4)):
        checkpoints = CheckpointManager(epath.Path(tmp_path) / "checkpoints", config)
        for number in numbers:
            metrics = {"causal_loss": {1: 1.0, 2: 3.0, 3: 2.0, 4: 4.0}[number]}
            checkpoints.save(number, state, Position(), metrics=metrics)
        checkpoints.wait()
        assert checkpoints.steps() == [1, numbers[-1]]
        checkpoints.close()


def test_a_save_that_fails_is_reported_and_the_next_is_tried(tmp_path, model, step):
    """A file stands where the directory was."""
    directory, lines = epath.Path(tmp_path) / "checkpoints", []
    config = CheckpointConfig(every=1, failures=3)
    checkpoints = CheckpointManager(directory, config, report=lines.append)
    state, _ = trained(step, model, 1)
    checkpoints.save(1, state, Position())
    checkpoints.wait()
    away = Path(tmp_path) / "away"
    Path(directory).rename(away)
    Path(directory).write_text("")
    checkpoints.save(2, state, Position())
    checkpoints.wait()
    assert len(lines) == 1
    assert "could not be written" in lines[0]
    Path(directory).unlink()
    away.rename(directory)
    checkpoints.save(3, state, Position())
    checkpoints.wait()
    assert checkpoints.steps() == [1, 3]
    Path(directory).rename(away)
    Path(directory).write_text("")
    for number in (4, 5):
        checkpoints.save(number, state, Position())
    with pytest.raises(UserError, match="3 in a row: training stops"):
        checkpoints.save(6, state, Position())
    assert len(lines) == 3


def test_a_checkpoint_of_format_2_goes_on_as_it_did(tmp_path, model, step):
    """Written by a version before format 3, together with the results of its next step."""
    shutil.copytree(GOLDEN, tmp_path / "run")
    number, state, place, lines = restore(epath.Path(tmp_path) / "run" / "checkpoints", model)
    assert (number, place, lines) == (3, 3, [])
    assert int(state.guard.seen) == 0
    expected = json.loads((GOLDEN / "expected.json").read_text())
    state, metrics = step(state, tiny.make_batch(2, 8, seed=3))
    np.testing.assert_allclose(metrics["loss"], expected["loss_of_step_4"], rtol=1e-6)
    for name, total in expected["sum_of_params"].items():
        found = np.abs(np.asarray(state.variables.params[name], np.float64)).sum()
        np.testing.assert_allclose(found, total, rtol=1e-6)


def poisoned(state, item):
    """Returns a copy of a state with one value that is not finite."""
    if item == "variables":
        params = dict(state.variables.params)
        params["embedding"] = params["embedding"].at[3, 1].set(np.nan)
        return dataclasses.replace(state, variables=Variables(params, state.variables.router_state))
    leaves, structure = jax.tree.flatten(state.optimizer_state)
    index = max(range(len(leaves)), key=lambda i: leaves[i].ndim)
    leaves[index] = leaves[index].at[0].set(np.inf)
    return dataclasses.replace(state, optimizer_state=jax.tree.unflatten(structure, leaves))


@pytest.mark.parametrize("item", ["variables", "optimizer"])
def test_what_is_not_finite_never_takes_the_place_of_what_is(tmp_path, model, item):
    """Also with `keep = 1`, where the next save removes the one before."""
    checkpoints = CheckpointManager(epath.Path(tmp_path) / "run", CheckpointConfig(every=1, keep=1))
    state = make_state(model, OPTIMIZER, 0)
    checkpoints.save(1, state, Position(1))
    with pytest.raises(UserError, match=rf"step 2 .*{item}: .* not finite; that of step 1 is kept"):
        checkpoints.save(2, poisoned(state, item), Position(2))
    assert checkpoints.steps() == [1]
    checkpoints.close()


def test_a_checkpoint_that_is_not_finite_is_left_for_the_one_before(copy, model, monkeypatch):
    """A checkpoint of an older version, which did not check for non-finite values."""
    _, state, *_ = restore(copy, model)
    checkpoints = CheckpointManager(copy, CheckpointConfig(every=1))
    with monkeypatch.context() as older:
        older.setattr(CheckpointManager, "_refuse_not_finite", lambda *_: None)
        checkpoints.save(4, poisoned(state, "variables"), Position(4))
    checkpoints.close()
    reader = CheckpointManager(copy)
    with pytest.raises(UserError, match=r"checkpoint 4 .*params/embedding has .* others: 2, 3"):
        reader.restore_variables(4, model)
    reader.close()
    number, _, place, (line,) = restore(copy, model)
    assert (number, place) == (3, 3)
    assert "params/embedding has values that are not finite" in line


def test_an_evaluation_that_is_not_finite_is_never_the_best(tmp_path, model):
    config = CheckpointConfig(every=1, keep=1, keep_best=1)
    checkpoints = CheckpointManager(epath.Path(tmp_path) / "checkpoints", config)
    state = make_state(model, OPTIMIZER, 0)
    for number, loss in enumerate([np.nan, 2.0, np.nan, -np.inf, 3.0, np.inf], start=1):
        metrics = {"causal_loss": loss, "perplexity": np.inf}
        checkpoints.save(number, state, Position(), metrics=metrics)
    checkpoints.wait()
    assert checkpoints.steps() == [2, 6]
    checkpoints.close()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"keep_every": 3, "every": 2}, "not a multiple"),
        ({"keep_best": -1}, "keep_best"),
        ({"best_is": "loss"}, "write '-loss' for the lowest"),
    ],
)
def test_settings_that_cannot_be_are_refused(change, message):
    with pytest.raises(UserError, match=message):
        CheckpointConfig(**change)
