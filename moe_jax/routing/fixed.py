"""Routing without a router matrix: baselines for quality, and for speed.

| router            | experts of a token                         | source                         |
|-------------------|--------------------------------------------|--------------------------------|
| `hash`            | a fixed function of the token's id         | Roller et al. 2021; id mod E   |
|                   |                                            | in Zhou et al. 2022, table 4   |
| `random`          | k drawn at random, anew in every step      | Zuo et al. 2021, section 3     |
| `forced_balanced` | token n: n k, ..., n k + k - 1 (mod E)     | for benchmarks: no imbalance   |
| `thor`            | one drawn for each layer and pass, and two | Zuo et al. 2021, section 4:    |
|                   | passes a step that must agree              | stochastic experts             |

The weight is 1 / k: nothing is learned, so there is no router gradient. Outside of training,
where there is no random key, `random` and `thor` draw from the token's id and position, so that
decoding token by token makes the same choice as a forward pass over the whole text.
"""

import dataclasses
import heapq
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from moe_jax.errors import UserError
from moe_jax.routing.assignment import Pairs, RouterOutput, RouterScores
from moe_jax.routing.metrics import health
from moe_jax.routing.pools import Pool
from moe_jax.routing.router import Router, RouterState
from moe_jax.settings import Count, PositiveInt, rule

HashMethod = Literal["modulo", "random", "balanced"]
# Experts are drawn once per ... while training.
DrawnPer = Literal["layer", "sequence", "token"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Fixed(Router):
    """What these routers share: no matrix, no state, no capacity, causal."""

    pool: Pool = dataclasses.field(default_factory=lambda: Pool("sequence"))

    is_causal = True
    is_learned = False

    def _output(self, expert_PNK: jax.Array, scores: RouterScores) -> RouterOutput:
        chosen_PNK = jnp.broadcast_to(scores.mask_PN[..., None], expert_PNK.shape)
        pairs = Pairs(
            expert_index_PNK=expert_PNK.astype(jnp.int32),
            weight_PNK=chosen_PNK.astype(jnp.float32) / expert_PNK.shape[-1],
            chosen_PNK=chosen_PNK,
            experts=scores.logits_PNE.shape[-1],
        )
        return RouterOutput(pairs, losses={}, metrics=health(pairs, scores), statistics={})

    def causal(self) -> Router:
        """Returns itself."""
        return self


@dataclasses.dataclass(frozen=True, kw_only=True)
class Hash(_Fixed):
    """The expert is a function of the token's id.

    Attributes:
        method: `modulo`, id mod E; `random`, a random table (seed 42, as in ParlAI); `balanced`,
            ids from the most to the least frequent, each to the expert with the fewest tokens so
            far (Roller et al. 2021, section 3.1).
        frequencies: how often each id occurs, for `balanced`.
        vocabulary: number of ids, for `random`.
    """

    method: HashMethod = "modulo"
    frequencies: tuple[Count, ...] | None = None
    vocabulary: PositiveInt | None = None

    name = "hash"
    experts_per_token = 1.0

    @staticmethod
    @rule
    def _table_can_be_made(
        method: HashMethod, frequencies: tuple[int, ...] | None, vocabulary: int | None
    ) -> None:
        if method == "balanced" and not frequencies:
            raise UserError(
                "Hash.method = 'balanced' needs Hash.frequencies, for instance "
                "@TokenFrequencies(), which counts the tokens of the training data"
            )
        if method == "random" and vocabulary is None:
            raise UserError("Hash.method = 'random' needs Hash.vocabulary, the number of token ids")

    def table(self, experts: int) -> np.ndarray | None:
        """Returns the expert of every id, int32 [V]; None for `modulo`."""
        if self.method == "random":
            return np.random.default_rng(42).integers(experts, size=self.vocabulary, dtype=np.int32)
        if self.method == "balanced":
            return balanced_table(np.asarray(self.frequencies), experts)
        return None

    def init_state(self, experts: int) -> RouterState:
        """Returns the table, if there is one: it is saved with the model, whatever was counted."""
        table = self.table(experts)
        return {} if table is None else {"table": jnp.asarray(table)}

    def __call__(self, scores: RouterScores, state: RouterState) -> RouterOutput:
        """Looks the tokens up."""
        assert scores.tokens_PN is not None, "hash routing goes by token ids"
        if self.method == "modulo":
            expert_PN = scores.tokens_PN % scores.logits_PNE.shape[-1]
        else:
            last = state["table"].shape[0] - 1
            expert_PN = state["table"][jnp.minimum(scores.tokens_PN, last)]
        return self._output(expert_PN[..., None], scores)


def balanced_table(frequencies: np.ndarray, experts: int) -> np.ndarray:
    """Returns the expert of every id so that experts get near the same number of tokens.

    Greedy: from the most frequent id to the least, ties by id, to the expert with the fewest
    tokens so far, then the fewest ids, then by index.
    """
    table = np.zeros(len(frequencies), np.int32)
    # Tokens and ids of each expert; the number of ids spreads those that never occur.
    least_loaded = [(0, 0, expert) for expert in range(experts)]
    for token in np.argsort(-frequencies, kind="stable"):
        load, ids, expert = least_loaded[0]
        table[token] = expert
        heapq.heapreplace(least_loaded, (load + int(frequencies[token]), ids + 1, expert))
    return table


@dataclasses.dataclass(frozen=True, kw_only=True)
class _SomeExperts(_Fixed):
    """A fixed number of experts for every token."""

    k: PositiveInt = 1

    @property
    def experts_per_token(self) -> float:
        """Returns k."""
        return float(self.k)

    def check(self, batch: int, length: int, experts: int) -> None:
        """Refuses more choices than experts."""
        super().check(batch, length, experts)
        if self.k > experts:
            raise UserError(
                f"{type(self).__name__}.k = {self.k} is more than the {experts} experts"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class RandomExperts(_SomeExperts):
    """k different experts drawn for every token, in every step.

    Attributes:
        k: experts per token.
    """

    name = "random"

    def __call__(self, scores: RouterScores, state: RouterState) -> RouterOutput:
        """Draws a number for every expert and takes the k largest."""
        del state
        experts = scores.logits_PNE.shape[-1]
        number_PNE = _random_numbers(scores, scores.logits_PNE.shape)
        return self._output(jax.lax.top_k(number_PNE, min(self.k, experts))[1], scores)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ForcedBalanced(_SomeExperts):
    """Token n of the batch takes experts n k, ..., n k + k - 1, modulo E.

    Attributes:
        k: experts per token.
    """

    name = "forced_balanced"

    def __call__(self, scores: RouterScores, state: RouterState) -> RouterOutput:
        """Deals the experts out; outside of training by the position in the document."""
        del state
        pools, tokens, experts = scores.logits_PNE.shape
        place_PN = scores.positions_PN
        if scores.key is not None or place_PN is None:
            place_PN = jnp.arange(pools * tokens, dtype=jnp.int32).reshape(pools, tokens)
            place_PN += scores.first_pool * tokens
        expert_PNK = (place_PN[..., None] * self.k + jnp.arange(self.k)) % experts
        return self._output(expert_PNK, scores)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Thor(_Fixed):
    """Stochastic experts: one at random, in two passes whose predictions must agree.

    The loss of a step is CE(pass 1) + CE(pass 2) + alpha (KL(p1 || p2) + KL(p2 || p1)) / 2, with
    alpha = `Loss.consistency` (Zuo et al. 2021, eq. 4 and 5).

    Attributes:
        drawn_per: while training, one expert for all tokens of a `layer`, of a `sequence`, or for
            each `token`.
    """

    drawn_per: DrawnPer = "layer"

    name = "thor"
    experts_per_token = 1.0
    passes = 2

    @staticmethod
    @rule
    def _sequences_are_pools(drawn_per: DrawnPer, pool: Pool) -> None:
        if drawn_per == "sequence" and pool.kind != "sequence":
            raise UserError(
                "Thor.drawn_per = 'sequence' needs a sequence pool: Pool.kind = 'sequence'"
            )

    def __call__(self, scores: RouterScores, state: RouterState) -> RouterOutput:
        """Draws; outside of training for each token."""
        del state
        pools, tokens, experts = scores.logits_PNE.shape
        if scores.key is not None and self.drawn_per == "layer":
            number_PN = jax.random.uniform(scores.key, (1, 1))
        else:
            drawn = 1 if scores.key is not None and self.drawn_per == "sequence" else tokens
            number_PN = _random_numbers(scores, (pools, drawn, 1))[..., 0]
        expert_PN = jnp.minimum((number_PN * experts).astype(jnp.int32), experts - 1)
        return self._output(jnp.broadcast_to(expert_PN, (pools, tokens))[..., None], scores)


def _random_numbers(scores: RouterScores, shape: tuple[int, ...]) -> jax.Array:
    """Returns numbers [P, ...] in [0, 1): from the key, or else from token ids and positions."""
    if scores.key is not None:
        return jax.vmap(lambda key: jax.random.uniform(key, shape[1:]))(scores.pool_keys())
    assert scores.tokens_PN is not None
    assert scores.positions_PN is not None
    mixed_PN = scores.tokens_PN.astype(jnp.uint32) * jnp.uint32(0x9E3779B1)
    mixed_PN = _mix(mixed_PN ^ scores.positions_PN.astype(jnp.uint32))
    column = jnp.arange(shape[-1], dtype=jnp.uint32) * jnp.uint32(0x85EBCA77)
    return (_mix(mixed_PN[..., None] ^ column) >> 8).astype(jnp.float32) * 2.0**-24


def _mix(x: jax.Array) -> jax.Array:
    """Mixes the bits of 32-bit integers (the finaliser of MurmurHash3)."""
    x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
    return x ^ (x >> 16)
