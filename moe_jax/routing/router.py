"""What every router offers: the interface that models, training and evaluation rely on."""

from typing import Protocol

import jax

from moe_jax.routing.assignment import RouterOutput, RouterScores
from moe_jax.routing.pools import Pool

# A router's non-trainable state, by name: arrays that training carries beside the parameters.
RouterState = dict[str, jax.Array]


class Router(Protocol):
    """A routing rule: hyper-parameters only; its state is passed in and handed back."""

    @property
    def name(self) -> str:
        """The registered name, as in `configs/routers/`."""

    @property
    def pool(self) -> Pool:
        """Which tokens compete for an expert."""

    @property
    def is_causal(self) -> bool:
        """Whether logits at a position never depend on later positions of its own row."""

    @property
    def experts_per_token(self) -> float:
        """Expert slots computed per token, on average: c of expert choice, k of token choice."""

    def check(self, batch: int, length: int, experts: int) -> None:
        """Refuses what cannot work for a batch [batch, length].

        Raises:
            UserError: with the reason and what would be right.
        """

    def init_state(self, experts: int) -> RouterState:
        """Returns the state of one layer before the first step."""

    def __call__(self, scores: RouterScores, state: RouterState) -> RouterOutput:
        """Decides the assignment of one layer's tokens."""

    def update_state(
        self, state: RouterState, statistics: dict[str, jax.Array], step: jax.Array
    ) -> RouterState:
        """Returns the state after step `step` (0 for the first), from the step's statistics."""

    def causal(self) -> "Router":
        """Returns the router to evaluate and decode with: itself if it is causal."""
