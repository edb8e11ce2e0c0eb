"""Assignments of tokens to experts, with combine weights: the interface of routing and dispatch.

An assignment has one of two equivalent layouts. `Slots` suits routers whose experts choose tokens
(a static number of slots per expert); `Pairs` suits routers whose tokens choose experts (a static
number of choices per token, with or without a capacity). Every dispatch in `moe_jax.dispatch`
accepts both.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from moe_jax.types import (
    IndexPEC,
    IndexPNK,
    MaskPEC,
    MaskPN,
    MaskPNE,
    MaskPNK,
    ScoresPNE,
    TokensPN,
    VectorE,
    WeightPEC,
    WeightPNK,
)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class RouterScores:
    """The inputs of a router; scores are always float32.

    Attributes:
        logits_PNE: the router logits.
        probabilities_PNE: their softmax over the experts.
        mask_PN: true for real tokens; padding is never routed.
        tokens_PN: the input tokens, int32; hash routing depends on them.
        positions_PN: positions of the tokens in their documents, int32.
        time_PN: positions of the tokens in their rows, int32; they define the order in which
            `left_to_right` assigns slots.
        key: random key of this layer and step in training; None otherwise, and then every router
            is deterministic.
        share_E: fraction of the whole batch's choices that each expert receives, if these tokens
            are only a part of the batch; None if they are all of it.
        first_pool: index of the first of these pools among those of all devices, int32 scalar.
        axes: mesh axes over which the tokens of the batch are sharded, inside `jax.shard_map`;
            empty if all tokens are local (static).
    """

    logits_PNE: ScoresPNE
    probabilities_PNE: ScoresPNE
    mask_PN: MaskPN
    tokens_PN: TokensPN | None = None
    positions_PN: TokensPN | None = None
    time_PN: TokensPN | None = None
    key: jax.Array | None = None
    share_E: VectorE | None = None
    first_pool: jax.Array | int = 0
    axes: tuple[str, ...] = dataclasses.field(default=(), metadata={"static": True})

    @classmethod
    def from_logits(cls, logits_PNE: ScoresPNE, mask_PN: MaskPN, **others: Any) -> "RouterScores":
        """Returns the scores of router logits, those of padding tokens replaced by 0.

        Whatever padding holds, infinities included, therefore reaches no result and no gradient.

        Args:
            logits_PNE: the router logits.
            mask_PN: true for real tokens.
            others: the other attributes.
        """
        logits_PNE = jnp.where(mask_PN[..., None], logits_PNE, 0.0)
        return cls(logits_PNE, jax.nn.softmax(logits_PNE, axis=-1), mask_PN, **others)

    def total(self, value: jax.Array) -> jax.Array:
        """Sums a value over the devices that the tokens of the batch are sharded over."""
        return jax.lax.psum(value, self.axes) if self.axes else value

    def pool_keys(self) -> jax.Array:
        """Returns a random key per pool, [P]; it does not depend on the pool's device."""
        assert self.key is not None
        pools = self.first_pool + jnp.arange(self.mask_PN.shape[0])
        return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(self.key, pools)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Slots:
    """An assignment by expert: each expert has C slots in each pool.

    Attributes:
        token_index_PEC: the token in the slot; 0 in an empty slot.
        weight_PEC: the combine weight, float32; 0 in an empty slot.
        filled_PEC: false for an empty slot.
    """

    token_index_PEC: IndexPEC
    weight_PEC: WeightPEC
    filled_PEC: MaskPEC

    @property
    def num_experts(self) -> int:
        """The number of experts, E."""
        return self.token_index_PEC.shape[1]

    def dense(self, tokens: int) -> tuple[ScoresPNE, MaskPNE]:
        """Returns dense combine weights and a dense boolean mask of the choices, both [P, N, E].

        Args:
            tokens: number of tokens in a pool, N.
        """
        pools, num_experts, _ = self.token_index_PEC.shape
        pool_P11 = jnp.arange(pools)[:, None, None]
        expert_E1 = jnp.arange(num_experts)[:, None]
        at = (pool_P11, self.token_index_PEC, expert_E1)
        weight_PEC = jnp.where(self.filled_PEC, self.weight_PEC, 0.0)
        weight_PNE = jnp.zeros((pools, tokens, num_experts), jnp.float32).at[at].add(weight_PEC)
        count_PNE = jnp.zeros(weight_PNE.shape, jnp.int32).at[at].add(self.filled_PEC)
        return weight_PNE, count_PNE > 0


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Pairs:
    """An assignment by token: each token has K choices, with or without a capacity.

    Attributes:
        expert_index_PNK: the expert of each choice; the chosen experts of a token are distinct.
        weight_PNK: the combine weight, float32; 0 where not chosen.
        chosen_PNK: false for an unused choice.
        num_experts: number of experts, E (static).
        slot_PNK: with a capacity, the slot of the choice among the C slots of its expert in its
            pool, int32; no two chosen pairs share a slot.
        capacity: slots per expert and pool, C (static); None for no limit, and then `slot_PNK` is
            None.
    """

    expert_index_PNK: IndexPNK
    weight_PNK: WeightPNK
    chosen_PNK: MaskPNK
    num_experts: int = dataclasses.field(metadata={"static": True})
    slot_PNK: IndexPNK | None = None
    capacity: int | None = dataclasses.field(default=None, metadata={"static": True})

    def slots(self) -> Slots:
        """Converts the assignment to `Slots`; it must have a capacity."""
        assert self.slot_PNK is not None
        assert self.capacity is not None
        pools, tokens, choices = self.expert_index_PNK.shape
        slots = self.num_experts * self.capacity
        # The pair in each slot, [P, E * C]; a pair without a slot is written nowhere, an empty
        # slot has none.
        slot_PM = self.expert_index_PNK * self.capacity + self.slot_PNK
        slot_PM = jnp.where(self.chosen_PNK, slot_PM, slots).reshape(pools, -1)
        pair_PM = jnp.broadcast_to(jnp.arange(tokens * choices, dtype=jnp.int32), slot_PM.shape)
        pool_P1 = jnp.arange(pools)[:, None]
        none = jnp.full((pools, slots), -1, jnp.int32)
        pair_in_slot = none.at[pool_P1, slot_PM].set(pair_PM, mode="drop", unique_indices=False)
        is_filled = pair_in_slot >= 0
        pair_in_slot = jnp.where(is_filled, pair_in_slot, 0)
        weight = jnp.take_along_axis(self.weight_PNK.reshape(pools, -1), pair_in_slot, axis=-1)
        shape = (pools, self.num_experts, self.capacity)
        return Slots(
            token_index_PEC=(pair_in_slot // choices).reshape(shape),
            weight_PEC=jnp.where(is_filled, weight, 0.0).reshape(shape),
            filled_PEC=is_filled.reshape(shape),
        )

    def dense(self, tokens: int) -> tuple[ScoresPNE, MaskPNE]:
        """Returns dense combine weights and a dense boolean mask of the choices, both [P, N, E].

        Args:
            tokens: number of tokens in a pool, N.
        """
        del tokens
        one_hot_PNKE = jax.nn.one_hot(self.expert_index_PNK, self.num_experts, dtype=jnp.bool_)
        chosen_PNE = jnp.any(one_hot_PNKE & self.chosen_PNK[..., None], axis=2)
        return self.dense_weight_PNE(), chosen_PNE

    def dense_weight_PNE(self) -> ScoresPNE:
        """Returns the combine weight of every token for every expert, 0 where not chosen."""
        one_hot_PNKE = jax.nn.one_hot(self.expert_index_PNK, self.num_experts)
        return jnp.einsum(
            "pnk,pnke->pne", self.weight_PNK, one_hot_PNKE * self.chosen_PNK[..., None]
        )


Assignment = Slots | Pairs


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class RouterOutput:
    """The outputs of a router, which has no side effects.

    Attributes:
        assignment: the assignment of tokens to experts.
        losses: unscaled auxiliary losses by name, scalars.
        metrics: routing metrics by name, scalars or vectors (`moe_jax.routing.metrics`).
        statistics: inputs of `Router.update_state` after the step, averaged over micro-batches
            and devices.
    """

    assignment: Assignment
    losses: dict[str, jax.Array] = dataclasses.field(default_factory=dict)
    metrics: dict[str, jax.Array] = dataclasses.field(default_factory=dict)
    statistics: dict[str, jax.Array] = dataclasses.field(default_factory=dict)
