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
    """Hash routing: the expert is a function of the token's id.

    Attributes:
        method: `modulo`, id mod E; `random`, a random table (seed 42, as in ParlAI); `balanced`,
            ids in descending order of frequency, each to the expert with the fewest tokens so far
            (Roller et al. 2021, section 3.1).
        frequencies: number of occurrences of each id, for `balanced`.
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
        """Returns the table, if there is one; as state it is saved in checkpoints."""
        table = self.table(experts)
        return {} if table is None else {"table": jnp.asarray(table)}

    def __call__(self, scores: RouterScores, state: RouterState) -> RouterOutput:
        """Looks up the expert of every token."""
        assert scores.tokens_PN is not None, "hash routing needs token ids"
        if self.method == "modulo":
            expert_PN = scores.tokens_PN % scores.logits_PNE.shape[-1]
        else:
            last = state["table"].shape[0] - 1
            expert_PN = state["table"][jnp.minimum(scores.tokens_PN, last)]
        return self._output(expert_PN[..., None], scores)


def balanced_table(frequencies: np.ndarray, experts: int) -> np.ndarray:
    """Returns the expert of every id such that experts receive about the same number of tokens.

    The algorithm is greedy: ids in descending order of frequency, ties by id, go to the expert with
    the fewest tokens so far, then the fewest ids, then the lowest index.
    """
    table = np.zeros(len(frequencies), np.int32)
    # Number of tokens and of ids of each expert; the latter distributes ids that never occur.
    least_loaded = [(0, 0, expert) for expert in range(experts)]
    for token in np.argsort(-frequencies, kind="stable"):
        load, ids, expert = least_loaded[0]
        table[token] = expert
        heapq.heapreplace(least_loaded, (load + int(frequencies[token]), ids + 1, expert))
    return table
