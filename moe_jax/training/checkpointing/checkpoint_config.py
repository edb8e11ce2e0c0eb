"""When checkpoints are saved, and which are kept."""

import dataclasses
import math
from typing import Annotated

from orbax.checkpoint import checkpoint_managers

from moe_jax.errors import UserError
from moe_jax.settings import PositiveInt, Settings, counted, rule
from moe_jax.training.checkpointing.checkpoint_items import comparable

# Of a checkpoint whose evaluation was not finite.
_WORST = {"causal_loss": math.inf}


@dataclasses.dataclass(frozen=True)
class CheckpointConfig(Settings, called="Checkpoints"):
    """When to save and what to keep.

    Attributes:
        every: steps between checkpoints; the last step is always saved.
        keep: how many of the latest are kept.
        keep_every: checkpoints of steps divisible by it are kept for good; 0 for none.
        keep_best: how many of those with the lowest held-out causal loss are kept too; only
            checkpoints of steps that were evaluated count.
        failures: saves that may fail in a row (a full disk, a directory that is gone) before
            training stops; each is reported, and the next is tried in its turn.
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
        """Returns Orbax's policy of what to keep."""
        policies: list[checkpoint_managers.PreservationPolicy]
        policies = [checkpoint_managers.LatestN(self.keep)]
        if self.keep_every:
            policies.append(checkpoint_managers.EveryNSteps(self.keep_every))
        if self.keep_best:
            policies.append(
                checkpoint_managers.BestN(
                    get_metric_fn=lambda metrics: -(comparable(metrics) or _WORST)["causal_loss"],
                    n=self.keep_best,
                    keep_checkpoints_without_metrics=False,
                )
            )
        return checkpoint_managers.AnyPreservationPolicy(policies)
