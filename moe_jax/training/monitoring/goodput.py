"""How much of a run's wall time went into steps that count, over all its attempts.

The goodput is the share of the wall time, from the start of the first attempt to the last record,
that was spent in training steps whose result was kept.
"""

import dataclasses
import itertools
import json
from collections.abc import Sequence

from etils import epath

from moe_jax.training.monitoring.goodput_recorder import TIME_FILE


@dataclasses.dataclass(frozen=True)
class GoodputRecord:
    """One record of `time.jsonl`.

    Attributes:
        attempt: which process wrote it.
        time: seconds since 1970.
        step: steps done.
        seconds: of the attempt so far, by what they went to.
        ended: whether the attempt ended in order with it.
    """

    attempt: str
    time: float
    step: int
    seconds: dict[str, float]
    ended: bool = False

    @property
    def attempt_start(self) -> float:
        """When the attempt began, seconds since 1970."""
        return self.time - sum(self.seconds.values())


@dataclasses.dataclass(frozen=True)
class Goodput:
    """What a run's wall time went to; `seconds`, `restart` add up to `wall`.

    Attributes:
        seconds: by name, over all attempts; without what a killed attempt did after its last
            record, which is in `restart`.
        restart: seconds from the last record of an attempt to the start of the next process.
        lost: of `seconds["step"]`, those of steps that had to be done again.
        wall: seconds from the start of the first attempt to the last record.
        attempts: processes that reached the loop.
        moments: all records, oldest first.
    """

    seconds: dict[str, float]
    restart: float
    lost: float
    wall: float
    attempts: int
    moments: tuple[GoodputRecord, ...]

    @property
    def goodput(self) -> float:
        """Share of the wall time in steps that count; 0 before there is any."""
        return (self.seconds.get("step", 0.0) - self.lost) / self.wall if self.wall > 0 else 0.0

    def last_attempt(self) -> list[GoodputRecord]:
        """Returns the records of the latest attempt, oldest first."""
        return _attempts(self.moments)[-1] if self.moments else []

    def elapsed(self) -> list[tuple[int, float]]:
        """Returns (step, seconds since the first attempt began) of the steps that count."""
        if not self.moments:
            return []
        begun, points = self.moments[0].attempt_start, list[tuple[int, float]]()
        for moment in self.moments:
            while points and points[-1][0] >= moment.step:
                points.pop()
            points.append((moment.step, max(moment.time - begun, 0.0)))
        return points


def read_goodput_records(directory: epath.Path) -> tuple[GoodputRecord, ...]:
    """Returns the records of a run; lines cut short by a crash or a full disk are left out."""
    path, moments = directory / TIME_FILE, []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            record = json.loads(line)
            moments.append(
                GoodputRecord(
                    str(record["attempt"]),
                    float(record["time"]),
                    int(record["step"]),
                    {str(name): float(value) for name, value in record["seconds"].items()},
                    bool(record.get("ended", False)),
                )
            )
        except (ValueError, KeyError, TypeError, AttributeError):
            continue
    return tuple(moments)


def read_goodput(directory: epath.Path) -> Goodput:
    """Reads what all attempts of a run wrote; all zero for a run without a record."""
    moments = read_goodput_records(directory)
    attempts = _attempts(moments)
    seconds: dict[str, float] = {}
    for attempt in attempts:
        for name, value in attempt[-1].seconds.items():
            seconds[name] = seconds.get(name, 0.0) + value
    restart = sum(
        # A clock that was set back in between must not make time.
        max(after[0].attempt_start - before[-1].time, 0.0)
        for before, after in itertools.pairwise(attempts)
    )
    wall = sum(seconds.values()) + restart
    return Goodput(seconds, restart, _lost(attempts), wall, len(attempts), moments)


def _attempts(moments: Sequence[GoodputRecord]) -> list[list[GoodputRecord]]:
    attempts: dict[str, list[GoodputRecord]] = {}
    for moment in moments:
        attempts.setdefault(moment.attempt, []).append(moment)
    return list(attempts.values())


def _lost(attempts: list[list[GoodputRecord]]) -> float:
    """Returns the seconds in steps that a later attempt did again."""
    lost = 0.0
    # What still counts of each attempt so far: its records, and up to which step.
    kept: list[tuple[list[GoodputRecord], int]] = []
    for attempt in attempts:
        resumed = attempt[0].step
        for index, (records, until) in enumerate(kept):
            cut = max(resumed, records[0].step)
            if until > cut:
                lost += _step_seconds(records, until) - _step_seconds(records, cut)
                kept[index] = (records, cut)
        kept.append((attempt, attempt[-1].step))
    return lost


def _step_seconds(records: list[GoodputRecord], step: int) -> float:
    """Returns the seconds in steps up to a step, between records in proportion."""
    before = records[0]
    for after in records:
        if after.step >= step:
            span = after.step - before.step
            share = (step - before.step) / span if span else 1.0
            first, last = before.seconds.get("step", 0.0), after.seconds.get("step", 0.0)
            return first + share * (last - first)
        before = after
    return before.seconds.get("step", 0.0)
