"""Count skipped updates, and explain them to the user."""

import collections

from moe_jax.training.loss_spike_guard import SkipReason

_CAUSES = {
    SkipReason.LOSS: "the loss is not finite",
    SkipReason.GRADIENT: "the loss is finite but its gradient is not",
    SkipReason.UPDATE: "loss and gradient are finite but what the optimiser makes of them is not",
    SkipReason.ROUTER: "loss and gradient are finite but the router's new state is not",
    SkipReason.SPIKE: "the loss or its gradient is a spike",
}
_ADVICE = {
    SkipReason.LOSS: "a lower learning rate, or other data",
    SkipReason.GRADIENT: "a lower learning rate, or other data",
    SkipReason.UPDATE: "a lower learning rate or, with AdamW, a larger AdamW.epsilon",
    SkipReason.ROUTER: "a lower learning rate, or another router",
    SkipReason.SPIKE: "a lower learning rate, other data, or a higher Guard.spike",
}


class SkipCounter:
    """Counts consecutive skipped updates, up to a limit.

    Args:
        limit: number of consecutive skipped updates after which training stops; 0 for never.
    """

    def __init__(self, limit: int) -> None:
        self._limit, self._in_row = limit, 0
        self._reasons: collections.Counter[SkipReason] = collections.Counter()

    @property
    def too_many(self) -> bool:
        """True if the limit is reached and training has to stop."""
        return 0 < self._limit <= self._in_row

    def add(self, reason: SkipReason, in_row: int) -> None:
        """Records a step.

        Args:
            reason: why its update was skipped, `SkipReason.NONE` if it was not.
            in_row: number of consecutive skipped updates up to this step.
        """
        if self.too_many:
            return
        self._in_row = in_row
        if reason is SkipReason.NONE:
            self._reasons.clear()
        else:
            self._reasons[reason] += 1

    def stop_message(self, step: int) -> str:
        """Returns the message for the user when the limit stops training after a step."""
        found = self._reasons.most_common()
        why = ", ".join(
            _CAUSES[reason] + (f" ({count} times)" if len(found) > 1 else "")
            for reason, count in found
        )
        return (
            f"training stopped at step {step}: {self._in_row} updates in a row were skipped "
            f"(Guard.limit): {why}. The parameters are saved as the last update that was made left "
            f"them; try {_ADVICE[found[0][0]]}"
        )


def skip_message(
    step: int, reason: SkipReason, loss: float, gradient_norm: float, in_row: int, total: int
) -> str:
    """Returns the message for the user about a step whose update was skipped."""
    return (
        f"step {step}: the update is skipped: {_CAUSES[reason]} (loss {loss:.4g}, gradient norm "
        f"{gradient_norm:.4g}; {in_row} in a row, {total} in all)"
    )
