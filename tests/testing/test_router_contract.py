"""Every router of the package keeps the contract, and routers that break it are told why."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
import pytest
from tiers import mostly_slow

from moe_jax.routers import ROUTERS, get_router
from moe_jax.routers.expert_choice import ExpertChoice
from moe_jax.routers.token_choice import TokenChoice
from moe_jax.routing import (
    Pairs,
    Pool,
    Router,
    RouterOutput,
    Slots,
    masked_mean,
    top_experts,
)
from moe_jax.testing import RouterContractError, check_router, shards


@pytest.mark.parametrize("name", mostly_slow(ROUTERS, ["switch"]))
def test_every_router_keeps_the_contract(name):
    check_router(get_router(name))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sequence", "position"])
def test_expert_choice_keeps_it_in_other_pools(kind):
    check_router(ExpertChoice(2.0, Pool(kind)))


@dataclasses.dataclass(frozen=True)
class TopOne(Router):
    """A right router, of which each of the others breaks one thing."""

    is_causal = True
    experts_per_token = 1.0

    def __call__(self, scores, state):
        expert_PNK = top_experts(self.choose_by(scores), 1)
        weight_PNK = jnp.take_along_axis(scores.probabilities_PNE, expert_PNK, -1)
        return self.output(scores, expert_PNK, weight_PNK, scores.mask_PN[..., None])

    def choose_by(self, scores):
        return scores.probabilities_PNE

    def output(self, scores, expert_PNK, weight_PNK, chosen_PNK):
        weight_PNK = jnp.where(chosen_PNK, weight_PNK, 0.0)
        pairs = Pairs(expert_PNK, weight_PNK, chosen_PNK, num_experts=scores.logits_PNE.shape[-1])
        return RouterOutput(pairs)


class ReadsTheFuture(TopOne):
    """Chooses by scores less their mean over the row: later tokens have a say."""

    def choose_by(self, scores):
        return scores.probabilities_PNE - scores.probabilities_PNE.mean(1, keepdims=True)


class DropsTheGradient(TopOne):
    def output(self, scores, expert_PNK, weight_PNK, chosen_PNK):
        weight_PNK = jax.lax.stop_gradient(weight_PNK)
        return super().output(scores, expert_PNK, weight_PNK, chosen_PNK)


class RoutesPadding(TopOne):
    def output(self, scores, expert_PNK, weight_PNK, chosen_PNK):
        return super().output(scores, expert_PNK, weight_PNK, jnp.ones_like(chosen_PNK))


class TwiceTheSame(TopOne):
    def output(self, scores, *arrays):
        return super().output(scores, *(jnp.concatenate([a, a], -1) for a in arrays))


class OutOfRange(TopOne):
    def output(self, scores, expert_PNK, *arrays):
        return super().output(scores, expert_PNK + 1, *arrays)


class SharedSlot(TopOne):
    """Gives every choice the first slot of its expert, of which there are two."""

    def output(self, scores, *arrays):
        pairs = super().output(scores, *arrays).assignment
        slot_PNK = jnp.zeros_like(pairs.expert_index_PNK)
        return RouterOutput(dataclasses.replace(pairs, slot_PNK=slot_PNK, capacity=2))


class LocalLoss(TopOne):
    """Squares a sum over the tokens that are here, not over those of the batch."""

    loss_weights: ClassVar = {"importance": 1.0}

    def output(self, scores, *arrays):
        output = super().output(scores, *arrays)
        total_E = jnp.where(scores.mask_PN[..., None], scores.probabilities_PNE, 0).sum((0, 1))
        return dataclasses.replace(output, losses={"importance": jnp.square(total_E).sum()})


class OtherState(TopOne):
    def init_state(self, experts):
        return {"bias": jnp.zeros(experts)}

    def update_state(self, state, statistics, step):
        return {"bias": state["bias"].sum(-1)}


class VectorLoss(TopOne):
    def output(self, scores, *arrays):
        output = super().output(scores, *arrays)
        return dataclasses.replace(output, losses={"balance": scores.logits_PNE.mean((0, 1))})


class BranchesOnValues(TopOne):
    def choose_by(self, scores):
        if scores.probabilities_PNE.max() > 0.5:
            return scores.probabilities_PNE
        return -scores.probabilities_PNE


class NoCausalForm(TopOne):
    is_causal = False


class BlindToNothing(TopOne):
    """Says that its causal form is expert choice over positions, where other rows compete."""

    is_causal = False

    def causal(self):
        return ExpertChoice(2.0, Pool("position"))


class NoSuchSlots(TopOne):
    slots_per_token = 1.0


class OtherSlots(ExpertChoice):
    slots_per_token = 1.0


@dataclasses.dataclass(frozen=True)
class NotHashable(TopOne):
    table: dict = dataclasses.field(default_factory=dict)


def test_a_right_router_passes():
    check_router(TopOne())


@pytest.mark.parametrize(
    ("router", "reason"),
    [
        (
            ReadsTheFuture(),
            r"ReadsTheFuture: is_causal is True, but outputs up to position \d+ move",
        ),
        (DropsTheGradient(), "matrix gets no gradient from the layer's output"),
        (RoutesPadding(), "padding is routed"),
        (TwiceTheSame(), "an expert takes the same token twice"),
        (OutOfRange(), "index of a token or an expert is out of range"),
        (SharedSlot(), "the dispatch '.*' differs from the oracle"),
        (LocalLoss(), "loss .*importance.* on four shards differs"),
        (OtherState(), "update_state turns .* into"),
        (VectorLoss(), "losses are scalars, but not balance"),
        (BranchesOnValues(), "shapes or branches depend on values"),
        (NoCausalForm(), "NoCausalForm is not causal: it needs a method causal"),
        (BlindToNothing(), "causal.. returns ExpertChoice.*, whose outputs move"),
        (NotHashable(), "it has to be hashable"),
        (NoSuchSlots(), "slots_per_token is 1.0, but the assignment has no capacity"),
        (OtherSlots(2.0), "slots_per_token is 1.0, but the assignment has 4 x .* slots for"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Router) else "",
)
def test_a_wrong_router_is_told_the_reason(router, reason):
    with pytest.raises(RouterContractError, match=reason):
        check_router(router)


def test_an_unknown_slot_layout_is_seen_in_both_forms():
    """`Slots` are read as `Pairs` are: a slot that is filled with padding is found."""

    class PaddedSlots(TopOne):
        is_causal = False

        def __call__(self, scores, state):
            pools, tokens, experts = scores.logits_PNE.shape
            index_PEC = jnp.broadcast_to(jnp.arange(tokens), (pools, experts, tokens))
            weight_PEC = scores.probabilities_PNE.swapaxes(1, 2)
            return RouterOutput(Slots(index_PEC, weight_PEC, jnp.ones(index_PEC.shape, bool)))

    with pytest.raises(RouterContractError, match="padding is routed"):
        check_router(PaddedSlots())


@pytest.mark.parametrize("router", [LocalLoss(), TokenChoice(k=1, normalise=False)], ids=str)
def test_one_device_finds_the_same_as_four(router, monkeypatch):
    """The shards in one program: what fails on devices fails, what passes passes."""
    one = jax.devices()[:1]
    monkeypatch.setattr(shards.jax, "devices", lambda: one)
    if isinstance(router, TokenChoice):
        check_router(router)
        return
    with pytest.raises(RouterContractError, match=r"loss .*importance.* on four shards differs"):
        check_router(router)


def test_masked_mean_of_routing_is_public():
    """Routers of users import what they are made of from `moe_jax.routing`."""
    value = masked_mean(jnp.array([[1.0, 3.0, 100.0]]), jnp.array([[True, True, False]]))
    assert float(value) == 2.0
