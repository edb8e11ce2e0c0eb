"""Settings of checkpoints: when to save and which to keep."""

import dataclasses
from typing import Annotated

from orbax.checkpoint import checkpoint_managers

from moe_jax.errors import UserError
from moe_jax.registration import configurable
from moe_jax.settings import PositiveInt, Settings, counted, rule
from moe_jax.training.checkpointing.best import Evaluations, KeepBest, Ranking


@configurable
@dataclasses.dataclass(frozen=True)
class CheckpointConfig(Settings, called="Checkpoints"):
    """When to save checkpoints, and which to keep.

    Attributes:
        every: steps between checkpoints; the last step is always saved.
        keep: number of latest checkpoints to keep.
        keep_every: checkpoints of steps divisible by this are never deleted; 0 for none.
        keep_best: number of best checkpoints to keep as well; only checkpoints of steps that were
            evaluated count.
        best_is: what the best is: a metric of the evaluation whose highest value is the best, such
            as `task/accuracy`, or with a `-` before it, its lowest, such as `-loss`; '' is the
            lowest held-out causal loss. `--step=best` and `Train.patience` use it, too.
        failures: number of consecutive failed saves (a full disk, a missing directory) after which
            training stops; each failure is reported, and the next save is tried when due.
    """

    every: PositiveInt = 1000
    keep: PositiveInt = 3
    keep_every: Annotated[int, counted("none")] = 0
    keep_best: Annotated[int, counted("none")] = 0
    best_is: str = ""
    failures: PositiveInt = 3

    @staticmethod
    @rule
    def _kept_steps_are_saved(keep_every: int, every: int) -> None:
        if keep_every % every:
            raise UserError(
                f"Checkpoints.keep_every = {keep_every} is not a multiple of "
                f"Checkpoints.every = {every}: nothing is saved at such steps"
            )

    @staticmethod
    @rule
    def _best_is_a_metric(best_is: str) -> None:
        Ranking.of(best_is)

    @property
    def ranking(self) -> Ranking:
        """The order of evaluations by `best_is`."""
        return Ranking.of(self.best_is)

    def policy(self, evaluations: Evaluations) -> checkpoint_managers.PreservationPolicy:
        """Returns the preservation policy for Orbax.

        Args:
            evaluations: the metrics of all checkpoints by step, kept up to date.
        """
        policies: list[checkpoint_managers.PreservationPolicy]
        policies = [checkpoint_managers.LatestN(self.keep)]
        if self.keep_every:
            policies.append(checkpoint_managers.EveryNSteps(self.keep_every))
        if self.keep_best:
            policies.append(KeepBest(self.ranking, self.keep_best, evaluations))
        return checkpoint_managers.AnyPreservationPolicy(policies)
