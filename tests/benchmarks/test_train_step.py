"""The parts of a training step."""

import optax
import pytest
import tiny
from tiers import mostly_slow

from moe_jax.benchmarks import train_step
from moe_jax.benchmarks.profile import scopes_of_instructions
from moe_jax.routers.expert_choice import ExpertChoice
from moe_jax.training.optimizers import Optimizer
from moe_jax.training.state import make_state
from moe_jax.training.step import LossConfig, make_train_step


@pytest.mark.slow
@pytest.mark.parametrize("dispatch", mostly_slow(["grouped", "gather"]))
def test_every_printed_part_of_a_step_is_found_in_the_program(dispatch):
    model, _ = tiny.make(ExpertChoice(), dispatch=dispatch)
    optimizer, batch = Optimizer(optax.sgd(0.1), lambda step: 0.1), tiny.make_batch(2, 16)
    step = make_train_step(model, optimizer, LossConfig())
    hlo = step.lower(make_state(model, optimizer, seed=0), batch).compile().as_text()
    found = scopes_of_instructions(hlo, list(train_step.SCOPES))
    assert set(found.values()) == {*train_step.SCOPES, "other"}
