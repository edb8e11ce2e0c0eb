"""Which checkpoint a run starts from."""

import pytest

from moe_jax.errors import UserError
from moe_jax.training.initial import InitialConfig, check_step, split_checkpoint


@pytest.mark.parametrize(
    ("path", "step", "expected"),
    [
        ("a/run", None, ("a/run", None)),
        ("a/run", "best", ("a/run", "best")),
        ("gs://b/run/checkpoints/40", None, ("gs://b/run", 40)),
        ("gs://b/run/checkpoints/40/", 40, ("gs://b/run", 40)),
        ("a/checkpoints", None, ("a/checkpoints", None)),
    ],
)
def test_the_path_of_a_checkpoint_is_that_of_a_run_and_a_step(path, step, expected):
    assert split_checkpoint(path, step) == expected


@pytest.mark.parametrize("step", [3, "best"])
def test_two_steps_are_refused(step):
    with pytest.raises(UserError, match=r"is the checkpoint of step 40, not .*Initial.step"):
        InitialConfig("run/checkpoints/40", step)
    # The default is no wish.
    assert InitialConfig("run/checkpoints/40").step == "latest"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"step": "bset"}, "Initial.step = 'bset' is unknown; known: latest, best"),
        ({"step": -1}, "Initial.step must be"),
        ({"optimizer": "old"}, "Initial.optimizer = 'old' is unknown; known: fresh, continued"),
        ({"checkpoint": " "}, "Initial.checkpoint must be a path"),
    ],
)
def test_mistakes_are_one_line(settings, message):
    with pytest.raises(UserError, match=message) as error:
        InitialConfig(**settings)
    assert "\n" not in str(error.value)


def test_steps_by_name():
    assert [check_step(step) for step in (7, "best", "latest", None)] == [7, "best", "latest", None]
    with pytest.raises(UserError, match=r"known: a number, latest, best. Did you mean 'best'"):
        check_step("bst")
