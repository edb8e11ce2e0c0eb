"""The interface of routers, which models, training and evaluation use."""

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

# The non-trainable state of a router, by name: arrays that training carries beside the parameters.
RouterState = dict[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class Description:
    """Description of a routing rule in the table of docs/guides/routers.md.

    Attributes:
        rule: the choice of experts and the combine weights.
        source: paper and equation or section.
        balanced: the method of load balancing.
    """

    rule: str
    source: str = "-"
    balanced: str = "-"


class Router(Settings, abc.ABC):
    """Base class of routers: holds hyperparameters only; state is passed in and returned.

    A subclass is a frozen dataclass; `moe_jax.configurable` registers it for gin files, and
    `moe_jax.testing.check_router` tests that it conforms to this interface.

    Attributes:
        name: name in lower case, as in the file names under `configs/routers/`; by default derived
            from the name of the class.
        pool: the groups of tokens that compete for the experts.
        loss_weights: default weights of the auxiliary losses that the router returns, by name;
            `Loss.weights` overrides them.
        description: row of the table of routers in the documentation.
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
        """True if the logits at a position never depend on later positions of any row."""

    @property
    @abc.abstractmethod
    def experts_per_token(self) -> float:
        """Mean number of experts per token: c of expert choice, k of token choice."""

    @property
    def slots_per_token(self) -> float | None:
        """Expert slots computed per token and layer in training, whether they are filled or not.

        None if only routed tokens are computed: as many as the metric `mean_experts` says. A
        router with a capacity returns the slots per token of a pool, before rounding: c of expert
        choice, k x capacity factor of token choice; a layer never computes more than E.
        """
        return None

    @property
    def is_learned(self) -> bool:
        """True if the layer has a router matrix."""
        return True

    @property
    def input_jitter(self) -> float:
        """Jitter: in training the router's input is multiplied by U(1 - jitter, 1 + jitter)."""
        return 0.0

    @property
    def passes(self) -> int:
        """Number of forward passes in a training step, each with its own random key."""
        return 1

    @property
    def has_batch_balance_loss(self) -> bool:
        """True if there is a balance loss over the whole batch, from `statistics["choices"]`."""
        return False

    def check(self, batch: int, length: int, experts: int) -> None:
        """Checks the settings for a batch of shape [batch, length].

        Raises:
            UserError: if the router cannot work; with the reason and a correction.
        """
        self.pool.shape(batch, length)
        if experts < 1:
            raise UserError(f"a mixture-of-experts layer needs at least 1 expert, not {experts}")

    def init_state(self, experts: int) -> RouterState:
        """Returns the initial state of one layer."""
        del experts
        return {}

    @abc.abstractmethod
    def __call__(self, scores: RouterScores, state: RouterState) -> RouterOutput:
        """Assigns the tokens of one layer to experts."""

    def update_state(
        self, state: RouterState, statistics: dict[str, jax.Array], step: jax.Array
    ) -> RouterState:
        """Returns the state after step `step` (the first is 0), given the step's statistics.

        All layers are updated together: the first axis of every array is the layer.
        """
        del statistics, step
        return state

    def causal(self) -> "Router":
        """Returns the router for evaluation and decoding: causal and independent of other rows.

        The default is the router itself, which is correct for a causal router that routes each
        token independently of the others.

        Raises:
            NotImplementedError: if the router is not causal and does not override this method.
        """
        if not self.is_causal:
            raise NotImplementedError(
                f"{type(self).__name__} is not causal: it needs a method causal() that returns "
                "the router for evaluation and decoding"
            )
        return self


def loss_names(router: Router, batch: int, length: int, num_experts: int) -> list[str]:
    """Returns the names of a router's training losses, from shapes only.

    Args:
        router: the router.
        batch: number of rows.
        length: number of positions in a row.
        num_experts: number of experts, E.
    """
    pools, tokens = router.pool.shape(batch, length)

    def losses() -> dict[str, jax.Array]:
        logits_PNE = jnp.zeros((pools, tokens, num_experts))
        tokens_PN = jnp.zeros((pools, tokens), jnp.int32)
        scores = RouterScores.from_logits(
            logits_PNE,
            jnp.ones((pools, tokens), jnp.bool_),
            tokens_PN=tokens_PN,
            positions_PN=tokens_PN,
            time_PN=tokens_PN,
            key=jax.random.key(0),
        )
        return router(scores, router.init_state(num_experts)).losses

    return list(jax.eval_shape(losses))
