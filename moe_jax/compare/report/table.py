"""Tables of the report, in a form that HTML, Markdown and the terminal share."""

import dataclasses

from moe_jax.compare.report import digits
from moe_jax.compare.results import ArmResult, Estimate, SpeedUp

ONE_SEED = "one seed"
NO_SEEDS = "no run with this value"
_CENSORED = "loss passed before the first evaluation"


@dataclasses.dataclass(frozen=True)
class Cell:
    """A value of a table.

    Attributes:
        text: the value.
        note: its interval, or the reason why it is missing; in smaller letters below it.
        is_flagged: True for what the reader should look at.
    """

    text: str
    note: str = ""
    is_flagged: bool = False


@dataclasses.dataclass(frozen=True)
class Table:
    """A table; the first cell of a row is its heading.

    Attributes:
        caption: what the table shows.
        columns: headings of the columns.
        rows: cells, as many in each row as there are columns.
        notes: sentences below the table.
        is_text: True if the cells are texts, which are aligned at the left.
    """

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()
    is_text: bool = False


def cell(text: str, reason: str, note: str = "") -> Cell:
    """Returns a cell with a value and a note, or with a dash and the reason for it."""
    return Cell(text, reason if text == digits.DASH else note)


def loss_cell(estimate: Estimate | None, reason: str = NO_SEEDS) -> Cell:
    """Returns a loss with its interval."""
    if estimate is None:
        return Cell(digits.DASH, reason)
    text, interval = digits.loss_estimate(estimate)
    return cell(text, "not finite", interval or _no_interval(estimate))


def gap_cell(arm: ArmResult) -> Cell:
    """Returns the causal loss minus the loss as trained; exactly 0 for causal routers."""
    if arm.is_causal and arm.gap.value == 0:
        return Cell("0", "causal router")
    return loss_cell(arm.gap)


def _no_interval(estimate: Estimate) -> str:
    return ONE_SEED if estimate.seeds < 2 else "no interval"


def ratio_cell(estimate: Estimate | None, reason: str = NO_SEEDS) -> Cell:
    """Returns a ratio with its interval."""
    if estimate is None:
        return Cell(digits.DASH, reason)
    text, interval = digits.ratio_estimate(estimate)
    return cell(text, "not finite", interval or _no_interval(estimate))


def speed_up_cell(found: SpeedUp | None, reason: str = NO_SEEDS) -> Cell:
    """Returns a speed-up with its interval, or as a bound."""
    if found is None or found.bound is None:
        return ratio_cell(None if found is None else found.estimate, reason)
    text, _ = digits.speed_up(found)
    return cell(text, _CENSORED, f"{_CENSORED} in {found.censored} of {len(found.by_seed)} pairs")


def p_cell(number: float | None, reason: str) -> Cell:
    """Returns a p-value."""
    return cell(digits.p_value(number), reason)
