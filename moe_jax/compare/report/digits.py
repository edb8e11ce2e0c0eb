"""Numbers as texts, with one digit more where an interval is narrow.

Every function returns `DASH` for a number that is missing or not finite.
"""

import math

from moe_jax.compare.results import Estimate, SpeedUp
from moe_jax.formatting import count

DASH = "-"


def is_finite(number: float | None) -> bool:
    """Returns True for a number that is there and neither infinite nor NaN."""
    return number is not None and math.isfinite(number)


def half_width(estimate: Estimate) -> float | None:
    """Returns half the width of an interval; None without one."""
    low, high = estimate.low, estimate.high
    if low is None or high is None or not math.isfinite(high - low):
        return None
    return (high - low) / 2


def loss(number: float | None, digits: int = 3) -> str:
    """Formats a loss or a difference of losses in nats per token."""
    if number is None or not math.isfinite(number):
        return DASH
    text = f"{number:.{digits}f}"
    return text.removeprefix("-") if not text.strip("-0.") else text


def loss_estimate(estimate: Estimate) -> tuple[str, str]:
    """Returns a loss and its interval, such as `3.214` and `[3.201, 3.227]`."""
    half = half_width(estimate)
    digits = 4 if half is not None and 0 < half < 0.001 else 3
    return loss(estimate.value, digits), _interval(
        loss(estimate.low, digits), loss(estimate.high, digits)
    )


def ratio(number: float | None, digits: int = 2) -> str:
    """Formats a ratio, such as `1.42×`; at least two significant digits."""
    if number is None or not math.isfinite(number):
        return DASH
    if abs(number) >= 99.5:
        return f"{number:,.0f}×"
    if 0 < abs(number) < 0.1:
        return f"{number:.2g}×"
    return f"{number:.{digits}f}×"


def ratio_estimate(estimate: Estimate) -> tuple[str, str]:
    """Returns a ratio and its interval, such as `1.42×` and `[1.31, 1.54]`."""
    half = half_width(estimate)
    digits = 3 if half is not None and 0 < half < 0.005 else 2
    low, high = (ratio(end, digits).removesuffix("×") for end in (estimate.low, estimate.high))
    return ratio(estimate.value, digits), _interval(low, high)


def speed_up(found: SpeedUp) -> tuple[str, str]:
    """Returns a speed-up and its interval; a bound begins with ≥ or ≤."""
    text, interval = ratio_estimate(found.estimate)
    if found.bound is None or text == DASH:
        return text, interval
    sign = {"lower": "≥ ", "upper": "≤ "}.get(found.bound)
    return (DASH if sign is None else f"{sign}{text}"), ""


def p_value(number: float | None) -> str:
    """Formats a p-value with two significant digits, as `< 0.001` below that."""
    if number is None or not math.isfinite(number):
        return DASH
    if number < 0.001:
        return "< 0.001"
    return f"{number:.3f}" if number < 0.0995 else f"{number:.2f}"


def steps(number: float | None) -> str:
    """Formats a number of steps or tokens with three significant digits or all of its own."""
    if number is None or not math.isfinite(number):
        return DASH
    return count(number)


def steps_estimate(estimate: Estimate) -> tuple[str, str]:
    """Returns a number of steps and its interval."""
    return steps(estimate.value), _interval(steps(estimate.low), steps(estimate.high))


def flops(number: float | None) -> str:
    """Formats a number of FLOPs, such as `1.80e+11`."""
    return f"{number:.2e}" if number is not None and math.isfinite(number) else DASH


def seconds(number: float | None) -> str:
    """Formats a duration of a step, in milliseconds below a second."""
    if number is None or not math.isfinite(number):
        return DASH
    return f"{number:.2f} s" if number >= 1 else f"{1000 * number:.3g} ms"


def duration(number: float | None) -> str:
    """Formats a wall time in the two largest of hours, minutes and seconds."""
    if number is None or not math.isfinite(number):
        return DASH
    minutes, rest = divmod(round(number), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours:,} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def share(number: float | None) -> str:
    """Formats a share in percent; a small one is not shown as zero."""
    if number is None or not math.isfinite(number):
        return DASH
    percent = 100 * number
    return "< 0.01%" if 0 < percent < 0.01 else f"{percent:.{0 if percent == 0 else 2}f}%"


def plain(number: float | None, digits: int = 2) -> str:
    """Formats a number with a fixed number of decimals."""
    return f"{number:.{digits}f}" if number is not None and math.isfinite(number) else DASH


def memory(number: int | None) -> str:
    """Formats a number of bytes in GiB or MiB."""
    if number is None:
        return DASH
    gib = number / 2**30
    return f"{gib:.1f} GiB" if gib >= 1 else f"{number / 2**20:.0f} MiB"


def learning_rate(number: float | None) -> str:
    """Formats a learning rate, such as `0.003`."""
    return f"{number:g}" if number is not None and math.isfinite(number) else DASH


def _interval(low: str, high: str) -> str:
    """Returns `[low, high]`; empty without an interval."""
    return "" if DASH in (low, high) else f"[{low}, {high}]"
