"""Settings of checkpoints: when to save and which to keep."""

import dataclasses
import math
from typing import Annotated, Any

from orbax.checkpoint import checkpoint_managers

from moe_jax.errors import UserError
from moe_jax.registration import configurable
from moe_jax.settings import PositiveInt, Settings, counted, rule
from moe_jax.training.checkpointing.checkpoint_items import finite_metrics

# The metrics of a checkpoint whose evaluation was not finite.
_WORST = {"causal_loss": math.inf}


@configurable
@dataclasses.dataclass(frozen=True)
class CheckpointConfig(Settings, called="Checkpoints"):
    """When to save checkpoints, and which to keep.

    Attributes:
        every: steps between checkpoints; the last step is always saved.
        keep: number of latest checkpoints to keep.
        keep_every: checkpoints of steps divisible by this are never deleted; 0 for none.
        keep_best: number of checkpoints with the lowest held-out causal loss to keep as well; only
            checkpoints of steps that were evaluated count.
        failures: number of consecutive failed saves (a full disk, a missing directory) after which
            training stops; each failure is reported, and the next save is tried when due.
    """

    every: PositiveInt = 1000
    keep: PositiveInt = 3
    keep_every: Annotated[int, counted("none")] = 0
    keep_best: Annotated[int, counted("none")] = 0
    failures: PositiveInt = 3

    @staticmethod
    @rule
    def _kept_steps_are_saved(keep_every: int, every: int) -> None:
        if keep_every % every:
            raise UserError(
                f"Checkpoints.keep_every = {keep_every} is not a multiple of "
                f"Checkpoints.every = {every}: nothing is saved at such steps"
            )

    def policy(self) -> checkpoint_managers.PreservationPolicy:
        """Returns the preservation policy for Orbax."""
        policies: list[checkpoint_managers.PreservationPolicy]
        policies = [checkpoint_managers.LatestN(self.keep)]
        if self.keep_every:
            policies.append(checkpoint_managers.EveryNSteps(self.keep_every))
        if self.keep_best:

            def negative_loss(metrics: Any) -> float:
                return -(finite_metrics(metrics) or _WORST)["causal_loss"]

            policies.append(
                checkpoint_managers.BestN(
                    get_metric_fn=negative_loss,
                    n=self.keep_best,
                    keep_checkpoints_without_metrics=False,
                )
            )
        return checkpoint_managers.AnyPreservationPolicy(policies)
