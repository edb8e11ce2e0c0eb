"""Find the runs that do not belong together.

| a run is refused if                          | it is marked if                         |
|----------------------------------------------|-----------------------------------------|
| it is unfinished                             | its data come in another order          |
| its data, tokenizer or sequences are others  | its batch or number of steps is another |
| its held-out set is another                  | its model has another size              |
| it repeats another run                       |                                         |

What most runs have is right: more than half of them for the data and the held-out set, the most
frequent value otherwise. Trials of learning rates have no vote and no marks: they may be shorter
than the runs of the comparison, and are checked among themselves, arm by arm. Runs that diverged
are kept: the comparison reports them.
"""

import collections
import dataclasses
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any

from moe_jax.compare.fingerprints import data_identity
from moe_jax.compare.records import RunRecord
from moe_jax.errors import UserError

_MOST_NAMED = 3
# Settings of the data, which decide what is predicted and in which units.
_DATA = ("sequence_length", "objective", "pack", "targets_length")
_ORDER = ("shards", "shuffle", "curriculum")
_SIZE = ("num_layers", "d_model", "num_heads", "head_dim", "vocab_size")

Facts = Mapping[str, Hashable]


@dataclasses.dataclass(frozen=True)
class CompatibleRuns:
    """Runs that belong together.

    Attributes:
        records: the runs that may be compared, in the order given.
        left_out: a line for each run that was refused or marked.
    """

    records: list[RunRecord]
    left_out: list[str]


def find_compatible(records: Sequence[RunRecord], is_planned: bool = False) -> CompatibleRuns:
    """Returns the runs that belong together, and a line for each run that was refused or marked.

    Args:
        records: the runs, with their arms.
        is_planned: True for the runs of a study, whose arms may differ in the size of the model.

    Raises:
        UserError: if there are several kinds of data, or of held-out sets, and none is that of
            more than half of the runs; in one line that lists them.
    """
    left_out: list[str] = []
    kept = _finished(records, left_out)
    identities = _identities(kept)
    checks: list[tuple[str, Callable[[RunRecord], Facts], str]] = [
        (
            "data",
            lambda record: {**identities[id(record)], **_settings(record, "Data", _DATA)},
            "train it on the data of the others, or compare it on its own",
        ),
        ("held-out set", _held_out, "evaluate all runs on the same tokens (Data.eval_batches)"),
    ]
    usual = [record for record in kept if record.role != "rate_trial"]
    for what, facts_of, right in checks:
        usual = _with_majority(usual, what, facts_of, right, left_out)
    allowed = {id(record) for record in [*usual, *_trials(kept, checks, left_out)]}
    kept = _first_of_each([record for record in kept if id(record) in allowed], left_out)
    usual = [record for record in kept if record.role != "rate_trial"]
    for record, reasons in _marks(usual, is_planned):
        left_out.append(f"marked: {record.name}: {'; '.join(reasons)}")
    return CompatibleRuns(kept, left_out)


def _trials(
    records: Sequence[RunRecord],
    checks: Sequence[tuple[str, Callable[[RunRecord], Facts], str]],
    left_out: list[str],
) -> list[RunRecord]:
    """Returns the trials of learning rates that belong to the others of their arm."""
    by_arm: dict[str, list[RunRecord]] = {}
    for record in records:
        if record.role == "rate_trial":
            by_arm.setdefault(record.arm, []).append(record)
    kept: list[RunRecord] = []
    for arm, trials in by_arm.items():
        try:
            for what, facts_of, right in checks:
                trials = _with_majority(trials, what, facts_of, right, left_out)
            kept += trials
        except UserError as error:
            left_out.append(f"{arm}: refused: its trials of learning rates: {error}")
    return kept


def _identities(records: Sequence[RunRecord]) -> dict[int, Facts]:
    """Returns what identifies the data and the vocabulary of each run, by its `id`.

    Contents decide where they are known. A run whose contents are not known, as an earlier version
    recorded it, has those of the runs with the same path.
    """
    of_path: dict[tuple[str, str], set[str]] = {}
    known = [data_identity(record.settings, record.data) for record in records]
    for record, found in zip(records, known, strict=True):
        for name, value in found.items():
            if value != (path := record.settings.get(name, "not set")):
                of_path.setdefault((name, path), set()).add(value)
    identities: dict[int, Facts] = {}
    for record, found in zip(records, known, strict=True):
        facts: dict[str, Hashable] = {}
        for name in ("Data.task", "Data.vocabulary"):
            path = record.settings.get(name, "not set")
            value, contents = found.get(name, path), of_path.get((name, path), set())
            facts[name] = min(contents) if value == path and len(contents) == 1 else value
        identities[id(record)] = facts
    return identities


def _finished(records: Sequence[RunRecord], left_out: list[str]) -> list[RunRecord]:
    kept = []
    for record in records:
        if record.outcome != "unfinished":
            kept.append(record)
            continue
        where = f"its last evaluation is at step {record.last_step:,}"
        left_out.append(
            f"{record.name}: refused: unfinished: "
            f"{where if record.curve.steps else 'it has no evaluation'} of "
            f"{record.planned_steps:,}; train it to its end"
        )
    return kept


def _first_of_each(records: Sequence[RunRecord], left_out: list[str]) -> list[RunRecord]:
    """Keeps one run for each arm and seed of the data; of trials, for each learning rate."""
    found: dict[Hashable, RunRecord] = {}
    for record in records:
        rate = record.learning_rate if record.role == "rate_trial" else None
        first = found.setdefault((record.arm, record.role, rate, record.data_seed), record)
        if first is not record:
            left_out.append(
                f"{record.name}: refused: it repeats {first.name}, a run of the same arm with "
                f"Data.seed = {record.data_seed}; give each run of an arm its own Data.seed"
            )
    return list(found.values())


def _with_majority(
    records: Sequence[RunRecord],
    what: str,
    facts_of: Callable[[RunRecord], Facts],
    right: str,
    left_out: list[str],
) -> list[RunRecord]:
    """Keeps the runs whose facts, as far as they are known, are those of more than half of them.

    Raises:
        UserError: if there is no such majority.
    """
    groups: dict[Hashable, list[RunRecord]] = {}
    for record in records:
        facts = facts_of(record)
        if None not in facts.values():
            groups.setdefault(tuple(facts.items()), []).append(record)
    if len(groups) < 2:
        return list(records)
    most = max(groups.values(), key=len)
    if 2 * len(most) <= sum(map(len, groups.values())):
        raise UserError(_no_majority(what, list(groups.values()), facts_of))
    kept, expected = [], facts_of(most[0])
    for record in records:
        differing = [n for n, v in facts_of(record).items() if v not in (None, expected[n])]
        if not differing:
            kept.append(record)
            continue
        found = ", ".join(f"{n} = {_shown(facts_of(record)[n])}" for n in differing)
        wanted = ", ".join(_shown(expected[n]) for n in differing)
        left_out.append(
            f"{record.name}: refused: other {what}: {found}, where {_named(most)} "
            f"{'have' if len(most) > 1 else 'has'} {wanted}; {right}"
        )
    return kept


def _no_majority(
    what: str, groups: Sequence[Sequence[RunRecord]], facts_of: Callable[[RunRecord], Facts]
) -> str:
    facts = [facts_of(group[0]) for group in groups]
    differing = [n for n in facts[0] if len({found[n] for found in facts}) > 1]
    parts = [
        f"{_named(group)}: {', '.join(f'{n} = {_shown(found[n])}' for n in differing)}"
        for group, found in zip(groups, facts, strict=True)
    ]
    return (
        f"the runs do not belong together: none of their {len(groups)} kinds of {what} is that of "
        f"more than half of them ({'; '.join(parts)}); give the runs of one kind"
    )


def _held_out(record: RunRecord) -> Facts:
    # A run that diverged early has no evaluation.
    tokens = {"held-out tokens": record.eval_tokens or None}
    return {**_settings(record, "Data", ("eval_split",)), **tokens}


def _settings(record: RunRecord, owner: str, names: Iterable[str]) -> dict[str, Hashable]:
    return {f"{owner}.{n}": record.settings.get(f"{owner}.{n}", "not set") for n in names}


def _marks(records: Sequence[RunRecord], is_planned: bool) -> Iterable[tuple[RunRecord, list[str]]]:
    """Yields the runs that differ from most others, with what differs and what it means."""
    checks: list[tuple[Callable[[RunRecord], Facts], str]] = [
        (lambda r: {"tokens per step": r.tokens_per_step}, "its steps have another cost"),
        (lambda r: {"Train.steps": r.planned_steps}, "its learning rate had another schedule"),
        (lambda r: _settings(r, "Data", _ORDER), "its data come in another order"),
    ]
    if not is_planned:
        checks.append((lambda r: _settings(r, "Model", _SIZE), "its model has another size"))
    usual = [_most_frequent(facts_of, records) for facts_of, _ in checks]
    for record in records:
        reasons = []
        for (facts_of, meaning), expected in zip(checks, usual, strict=True):
            differing = [
                f"{name} = {_shown(value)}, usual is {_shown(expected[name])}"
                for name, value in facts_of(record).items()
                if value != expected[name]
            ]
            if differing:
                reasons.append(f"{', '.join(differing)}: {meaning}")
        if reasons:
            yield record, reasons


def _most_frequent(
    facts_of: Callable[[RunRecord], Facts], records: Sequence[RunRecord]
) -> dict[str, Any]:
    """Returns the most frequent value of each fact; the first of equally frequent ones."""
    names = facts_of(records[0]) if records else {}
    return {
        n: collections.Counter(facts_of(record)[n] for record in records).most_common(1)[0][0]
        for n in names
    }


def _named(records: Sequence[RunRecord]) -> str:
    names = [record.name for record in records[:_MOST_NAMED]]
    more = f" and {len(records) - _MOST_NAMED} more" if len(records) > _MOST_NAMED else ""
    return f"{', '.join(names)}{more}"


def _shown(value: Any) -> str:
    text = f"{value:,}" if isinstance(value, int) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
