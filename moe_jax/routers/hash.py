"""Hash routing: the expert is a fixed function of the token's id (Roller et al. 2021)."""

import dataclasses
import heapq
from typing import Literal

import jax.numpy as jnp
import numpy as np

from moe_jax.errors import UserError
from moe_jax.registration import configurable
from moe_jax.routers.unlearned import UnlearnedRouter
from moe_jax.routing.assignment import RouterOutput, RouterScores
from moe_jax.routing.router import Description, RouterState
from moe_jax.settings import Count, PositiveInt, rule

HashMethod = Literal["modulo", "random", "balanced"]


@configurable
@dataclasses.dataclass(frozen=True, kw_only=True)
class Hash(UnlearnedRouter):
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
    description = Description(
        "a function of the token's id: id mod E, a random table, or one balanced by frequency; "
        "weight 1",
        source="Roller et al. 2021, section 3.1; id mod E in Zhou et al. 2022, table 4",
        balanced="as the ids are",
    )
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
