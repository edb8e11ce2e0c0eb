"""Read the goodput of a run, over all its attempts, from `time.jsonl`.

Goodput is the share of the wall time, from the start of the first attempt to the last record,
that was spent in training steps whose results were kept.
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
        attempt: identifier of the process that wrote the record.
        time: seconds since 1970.
        step: steps done.
        seconds: wall time of the attempt so far, by activity.
        ended: whether this record marks an orderly end of the attempt.
    """

    attempt: str
    time: float
    step: int
    seconds: dict[str, float]
    ended: bool = False

    @property
    def attempt_start(self) -> float:
        """Start of the attempt, seconds since 1970."""
        return self.time - sum(self.seconds.values())


@dataclasses.dataclass(frozen=True)
class Goodput:
    """The wall time of a run by activity; `seconds` and `restart` add up to `wall`.

    Attributes:
        seconds: by activity, over all attempts. The time of a killed attempt after its last
            record is part of `restart` instead.
        restart: seconds from the last record of an attempt to the start of the next process.
        lost: the part of `seconds["step"]` in steps that were repeated by a later attempt.
        wall: seconds from the start of the first attempt to the last record.
        attempts: number of processes that reached the training loop.
        records: all records, oldest first.
    """

    seconds: dict[str, float]
    restart: float
    lost: float
    wall: float
    attempts: int
    records: tuple[GoodputRecord, ...]

    @property
    def goodput(self) -> float:
        """Share of the wall time in steps whose results were kept; 0 for no wall time."""
        return (self.seconds.get("step", 0.0) - self.lost) / self.wall if self.wall > 0 else 0.0

    def last_attempt(self) -> list[GoodputRecord]:
        """Returns the records of the latest attempt, oldest first."""
        return _attempts(self.records)[-1] if self.records else []

    def elapsed(self) -> list[tuple[int, float]]:
        """Returns (step, seconds since the first attempt began) of the steps that were kept."""
        if not self.records:
            return []
        begun, points = self.records[0].attempt_start, list[tuple[int, float]]()
        for record in self.records:
            while points and points[-1][0] >= record.step:
                points.pop()
            points.append((record.step, max(record.time - begun, 0.0)))
        return points


def read_goodput_records(directory: epath.Path) -> tuple[GoodputRecord, ...]:
    """Returns the records of a run, without lines truncated by a crash or a full disk."""
    path, records = directory / TIME_FILE, []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            record = json.loads(line)
            records.append(
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
    return tuple(records)


def read_goodput(directory: epath.Path) -> Goodput:
    """Returns the goodput of a run over all its attempts; all zero without records."""
    records = read_goodput_records(directory)
    attempts = _attempts(records)
    seconds: dict[str, float] = {}
    for attempt in attempts:
        for name, value in attempt[-1].seconds.items():
            seconds[name] = seconds.get(name, 0.0) + value
    restart = sum(
        # A wall clock that was set back in between must not add time.
        max(after[0].attempt_start - before[-1].time, 0.0)
        for before, after in itertools.pairwise(attempts)
    )
    wall = sum(seconds.values()) + restart
    return Goodput(seconds, restart, _lost(attempts), wall, len(attempts), records)


def _attempts(records: Sequence[GoodputRecord]) -> list[list[GoodputRecord]]:
    attempts: dict[str, list[GoodputRecord]] = {}
    for record in records:
        attempts.setdefault(record.attempt, []).append(record)
    return list(attempts.values())


def _lost(attempts: list[list[GoodputRecord]]) -> float:
    """Returns the seconds in steps that a later attempt repeated."""
    lost = 0.0
    # The records of each earlier attempt, and the last of its steps that is still kept.
    kept: list[tuple[list[GoodputRecord], int]] = []
    for attempt in attempts:
        resumed = attempt[0].step
        for index, (records, until) in enumerate(kept):
            last = max(resumed, records[0].step)
            if until > last:
                lost += _step_seconds(records, until) - _step_seconds(records, last)
                kept[index] = (records, last)
        kept.append((attempt, attempt[-1].step))
    return lost


def _step_seconds(records: list[GoodputRecord], step: int) -> float:
    """Returns the seconds in steps up to a step, interpolated linearly between records."""
    before = records[0]
    for after in records:
        if after.step >= step:
            span = after.step - before.step
            share = (step - before.step) / span if span else 1.0
            first, last = before.seconds.get("step", 0.0), after.seconds.get("step", 0.0)
            return first + share * (last - first)
        before = after
    return before.seconds.get("step", 0.0)
