"""Settings that may differ for a finished run."""

import pytest

from moe_jax.training.run_directory.config_difference import compare_configs

RUN = """
# Macros:
STEPS = 100
TASK = 'text:a.txt'

# Parameters for Model:
Data.task = %TASK
Experiment.initial = @Initial()
Experiment.router = @ExpertChoice()
Experiment.writers = @Writers()
ExpertChoice.capacity_factor = 2.0
Initial.checkpoint = 'runs/base'
Model.d_model = 16
Model.remat_names = \\
    ('moe_in',
     'moe_out')
Mesh.fsdp = 1
Train.log_every = 10
Train.profile_at = 0
Train.seed = 0
Train.steps = %STEPS
WarmupCosine.decay_steps = %STEPS
"""


def changed(old, new):
    assert old in RUN
    return compare_configs(RUN, RUN.replace(old, new))


def test_the_same_is_the_same():
    found = compare_configs(RUN, RUN)
    assert (found.model, found.other) == ([], [])


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("d_model = 16", "d_model = 32", "Model.d_model is 32, was 16"),
        ("= @ExpertChoice()", "= @Hash()", "Experiment.router is @Hash(), was @ExpertChoice()"),
        ("factor = 2.0", "factor = 1.0", "ExpertChoice.capacity_factor is 1.0, was 2.0"),
        ("seed = 0", "seed = 1", "Train.seed is 1, was 0"),
        ("TASK = 'text:a.txt'", "TASK = 'c4'", "Data.task is 'c4', was 'text:a.txt'"),
        (
            "decay_steps = %STEPS",
            "decay_steps = 50",
            "WarmupCosine.decay_steps is 50, was 100",
        ),
    ],
)
def test_what_decides_the_model(old, new, line):
    found = changed(old, new)
    assert (found.model, found.other) == ([line], [])


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("log_every = 10", "log_every = 1", "Train.log_every is 1, was 10"),
        ("profile_at = 0", "profile_at = 5", "Train.profile_at is 5, was 0"),
        ("fsdp = 1", "fsdp = 8", "Mesh.fsdp is 8, was 1"),
        ("'runs/base'", "'b'", "Initial.checkpoint is 'b', was 'runs/base'"),
        (
            "= @Writers()",
            "= @two/Writers()",
            "Experiment.writers is @two/Writers(), was @Writers()",
        ),
        (
            "'moe_out')",
            "'qkv')",
            "Model.remat_names is \\ ('moe_in', 'qkv'), was \\ ('moe_in', 'moe_out')",
        ),
        # Another version of the program may know another setting.
        ("Mesh.fsdp = 1", "Mesh.fsdp = 1\nModel.new = 3", "Model.new is 3, was not set"),
    ],
)
def test_what_does_not(old, new, line):
    found = changed(old, new)
    assert (found.model, found.other) == ([], [line.replace("\\ ", "")])


def test_fewer_steps_take_a_schedule_that_ends_with_them_along():
    found = changed("STEPS = 100", "STEPS = 50")
    assert found.model == []
    assert found.other == ["Train.steps is 50, was 100", "WarmupCosine.decay_steps is 50, was 100"]
