"""The interface of routers, on which models, training and evaluation rely."""

import abc
import dataclasses
import re
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from moe_jax.errors import UserError
from moe_jax.routing.assignment import RouterOutput, RouterScores
from moe_jax.routing.pools import Pool
from moe_jax.settings import Settings

# A router's non-trainable state, by name: arrays that training carries beside the parameters.
RouterState = dict[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class Description:
    """The facts about a routing rule that the table in docs/guides/routers.md shows.

    Attributes:
        rule: who goes where, with which weight.
        source: paper and equation or section.
        balanced: how the load is balanced.
    """

    rule: str
    source: str = "-"
    balanced: str = "-"


class Router(Settings, abc.ABC):
    """A routing rule: hyper-parameters only; its state is passed in and returned.

    A subclass is a frozen dataclass; `moe_jax.configurable` makes it known to gin files, and
    `moe_jax.testing.check_router` checks that it keeps this contract.

    Attributes:
        name: in lower case, as the files under `configs/routers/` are called; by default derived
            from the class.
        pool: which tokens compete for an expert.
        loss_weights: default weight of each auxiliary loss that the router returns, by name;
            `Loss.weights` overrides them.
        description: for the table of routers.
    """

    name: str
    pool: Pool = Pool("sequence")
    loss_weights: ClassVar[Mapping[str, float]] = {}
    description: ClassVar[Description | None] = None

    def __init_subclass__(cls, **options: Any):
        super().__init_subclass__(**options)
        if "name" not in vars(cls):
            cls.name = re.sub(r"(?<!^)(?=[A-Z])", "_", cls.__name__).lower()

    @property
    @abc.abstractmethod
    def is_causal(self) -> bool:
        """Whether logits at a position never depend on later positions of any row."""

    @property
    @abc.abstractmethod
    def experts_per_token(self) -> float:
        """Experts that a token meets, on average: c of expert choice, k of token choice."""

    @property
    def is_learned(self) -> bool:
        """Whether the layer has a router matrix."""
        return True

    @property
    def input_jitter(self) -> float:
        """While training the router's input is multiplied by U(1 - jitter, 1 + jitter)."""
        return 0.0

    @property
    def passes(self) -> int:
        """Forward passes with different random keys in a training step."""
        return 1

    @property
    def has_batch_balance_loss(self) -> bool:
        """Whether there is a balance loss over the whole batch, from `statistics["choices"]`."""
        return False

    def check(self, batch: int, length: int, experts: int) -> None:
        """Refuses what cannot work for a batch [batch, length].

        Raises:
            UserError: with the reason and what would be right.
        """
        self.pool.shape(batch, length)
        if experts < 1:
            raise UserError(f"a mixture-of-experts layer needs at least 1 expert, not {experts}")

    def init_state(self, experts: int) -> RouterState:
        """Returns the state of one layer before the first step."""
        del experts
        return {}

    @abc.abstractmethod
    def __call__(self, scores: RouterScores, state: RouterState) -> RouterOutput:
        """Decides the assignment of one layer's tokens."""

    def update_state(
        self, state: RouterState, statistics: dict[str, jax.Array], step: jax.Array
    ) -> RouterState:
        """Returns the state after step `step` (0 for the first), from the step's statistics.

        All layers at once: every array has the layers in front.
        """
        del statistics, step
        return state

    def causal(self) -> "Router":
        """Returns the router to evaluate and decode with: causal, and independent of other rows.

        By default the router itself, which is right for a causal router that decides for each
        token on its own.

        Raises:
            NotImplementedError: by a router that is not causal and does not override this.
        """
        if not self.is_causal:
            raise NotImplementedError(
                f"{type(self).__name__} is not causal: it needs a method causal() that returns "
                "the router to evaluate and decode with"
            )
        return self


def loss_names(router: Router, batch: int, length: int, num_experts: int) -> list[str]:
    """Returns the names of the losses that a router returns while training, without computing them.

    Args:
        router: the router.
        batch: rows.
        length: positions in a row.
        num_experts: E.
    """
    pools, tokens = router.pool.shape(batch, length)

    def losses() -> dict[str, jax.Array]:
        logits_PNE = jnp.zeros((pools, tokens, num_experts))
        tokens_PN = jnp.zeros((pools, tokens), jnp.int32)
        scores = RouterScores(
            logits_PNE=logits_PNE,
            probabilities_PNE=jax.nn.softmax(logits_PNE),
            mask_PN=jnp.ones((pools, tokens), jnp.bool_),
            tokens_PN=tokens_PN,
            positions_PN=tokens_PN,
            time_PN=tokens_PN,
            key=jax.random.key(0),
        )
        return router(scores, router.init_state(num_experts)).losses

    return list(jax.eval_shape(losses))
