"""Which evaluation of a run is the best: that with the lowest or highest value of one metric."""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence

from orbax.checkpoint import checkpoint_managers

from moe_jax.errors import UserError, nearest

# The metric of `Checkpoints.best_is = ''`: comparable between routers, unlike the loss as trained.
_DEFAULT = "-causal_loss"
_LOW_IS_GOOD = ("loss", "perplexity", "bits_per_byte")

# The metrics of evaluations, by step.
Evaluations = Mapping[int, Mapping[str, float | None]]


@dataclasses.dataclass(frozen=True)
class Ranking:
    """An order of evaluations by one metric.

    Attributes:
        metric: name of the metric, such as `causal_loss` or `task/accuracy`.
        lowest: True if the lowest value is the best.
    """

    metric: str
    lowest: bool

    @classmethod
    def of(cls, best_is: str) -> "Ranking":
        """Returns the ranking that `Checkpoints.best_is` names.

        Args:
            best_is: a metric whose highest value is the best, one whose lowest is, with `-` before
                it, or '' for the lowest causal loss.

        Raises:
            UserError: for a loss without `-`.
        """
        named = best_is or _DEFAULT
        metric = named.removeprefix("-")
        if not named.startswith("-") and metric.endswith(_LOW_IS_GOOD):
            raise UserError(
                f"Checkpoints.best_is = {best_is!r} would keep the checkpoint with the highest "
                f"{metric}: write '-{metric}' for the lowest"
            )
        return cls(metric, named.startswith("-"))

    def score(self, metrics: Mapping[str, float | None]) -> float:
        """Returns a value that is higher for better metrics; -inf if it is not a finite number."""
        value = metrics.get(self.metric)
        if value is None or not math.isfinite(value):
            return -math.inf
        return -value if self.lowest else value

    def best(self, evaluations: Evaluations) -> int | None:
        """Returns the step of the best evaluation, the latest of equal ones; None if there is none.

        Equal ones are resolved as for the checkpoints that are kept.
        """
        scores = {step: self.score(metrics) for step, metrics in evaluations.items()}
        known = [(score, step) for step, score in scores.items() if score > -math.inf]
        return max(known)[1] if known else None

    def check(self, names: Iterable[str]) -> None:
        """Checks that evaluations have the metric.

        Raises:
            UserError: if they do not.
        """
        names = sorted(names)
        if self.metric not in names:
            raise UserError(
                f"Checkpoints.best_is names {self.metric!r}, which no evaluation of this run has; "
                f"it has: {', '.join(names)}.{nearest(self.metric, names)}"
            )

    def __str__(self) -> str:
        """Returns the metric with the direction."""
        return f"{'lowest' if self.lowest else 'highest'} {self.metric}"


@dataclasses.dataclass(frozen=True)
class KeepBest(checkpoint_managers.PreservationPolicy):
    """Keeps the checkpoints with the best evaluations; for Orbax.

    Orbax's own policy forgets the metrics of earlier processes.

    Attributes:
        ranking: what is the best.
        count: number of checkpoints to keep.
        evaluations: the metrics of all checkpoints by step, kept up to date.
    """

    ranking: Ranking
    count: int
    evaluations: Evaluations

    def should_preserve(
        self,
        checkpoints: Sequence[checkpoint_managers.PolicyCheckpointInfo],
        *,
        context: checkpoint_managers.PreservationContext,
    ) -> Sequence[bool]:
        """Returns which of the checkpoints are kept."""
        del context
        steps = [checkpoint.step for checkpoint in checkpoints]
        left = {step: self.evaluations[step] for step in steps if step in self.evaluations}
        kept: set[int] = set()
        while len(kept) < self.count and (best := self.ranking.best(left)) is not None:
            kept.add(best)
            del left[best]
        return [step in kept for step in steps]


class EarlyStop:
    """Counts the evaluations since the best one.

    Args:
        ranking: what is the best.
        patience: number of evaluations without improvement that ends training; 0 for none.
        evaluations: those made before training was interrupted, in order.
    """

    def __init__(self, ranking: Ranking, patience: int = 0, evaluations: Evaluations | None = None):
        self.ranking, self.patience = ranking, patience
        self._evaluations: dict[int, Mapping[str, float | None]] = {}
        self._highest, self._waited = -math.inf, 0
        for step, metrics in (evaluations or {}).items():
            self._count(step, metrics)

    def add(self, step: int, metrics: Mapping[str, float | None]) -> None:
        """Adds an evaluation. That before the first step is no candidate: it has no checkpoint.

        Raises:
            UserError: if it lacks the metric.
        """
        self.ranking.check(metrics)
        self._count(step, metrics)

    def _count(self, step: int, metrics: Mapping[str, float | None]) -> None:
        if step == 0 or step in self._evaluations:
            return
        self._evaluations[step] = metrics
        score = self.ranking.score(metrics)
        self._waited = 0 if score > self._highest else self._waited + 1
        self._highest = max(score, self._highest)

    @property
    def is_due(self) -> bool:
        """True if training has to end."""
        return 0 < self.patience <= self._waited

    @property
    def best_step(self) -> int | None:
        """The step of the best evaluation so far."""
        return self.ranking.best(self._evaluations)

    def message(self, step: int) -> str:
        """Returns why training ended after a step, in one line."""
        best = self.best_step
        value = None if best is None else self._evaluations[best][self.ranking.metric]
        found = "none was finite" if value is None else f"{value:.4g} at step {best}"
        count = "an evaluation" if self._waited == 1 else f"{self._waited} evaluations"
        return (
            f"Stopped early after step {step}: {count} without improvement "
            f"(Train.patience); the {self.ranking}: {found}"
        )
