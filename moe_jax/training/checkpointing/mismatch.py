"""Explain why a checkpoint does not match the configuration, by the settings that differ."""

import contextlib
from collections.abc import Iterable, Iterator, Mapping

from etils import epath

from moe_jax.errors import UserError
from moe_jax.sharding.processes import config_bindings
from moe_jax.training.run_directory.run_directory import CONFIG_FILE

# Settings of a model that do not affect the shapes of its arrays.
_WITHOUT_ARRAYS = (
    "attention",
    "bidirectional_prefix",
    "compute_dtype",
    "dispatch",
    "dropout",
    "expert_dropout",
    "relative_max_distance",
    "remat",
    "remat_names",
    "scan_layers",
)
_FROZEN = "Train.frozen"
_MAX_NAMED = 6


class CheckpointMismatch(UserError):
    """The checkpoint belongs to another model or optimiser.

    Attributes:
        item: the item that does not match, `variables` or `optimizer`.
        step: step of the checkpoint.
    """

    def __init__(self, message: str, item: str, step: int):
        super().__init__(message)
        self.item, self.step = item, step


def differing(saved: Mapping[str, str], now: Mapping[str, str]) -> str:
    """Returns the first arrays whose types or shapes differ, as `NAME: SAVED -> NOW`."""
    changed = [
        f"{name}: {saved.get(name, 'none')} -> {now.get(name, 'none')}"
        for name in sorted({*saved, *now})
        if saved.get(name) != now.get(name)
    ]
    more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
    return "; ".join(changed[:3]) + more


@contextlib.contextmanager
def explain_mismatch(run: epath.Path, now: str, *, trains: bool) -> Iterator[None]:
    """A context manager that replaces a `CheckpointMismatch` by an error naming the settings.

    Args:
        run: the run directory, with the configuration of its checkpoints.
        now: the present configuration.
        trains: True for training, which could also start in another directory.

    Raises:
        UserError: instead of the `CheckpointMismatch`.
    """
    try:
        yield
    except CheckpointMismatch as error:
        raise mismatch_error(error, run, now, trains=trains) from None


def mismatch_error(
    error: CheckpointMismatch, run: epath.Path, now: str, *, trains: bool
) -> UserError:
    """Returns an error naming the differing settings; the original one if none differ."""
    path = run / CONFIG_FILE
    before = config_bindings(path.read_text()) if path.exists() else {}
    changed = changed_settings(before, config_bindings(now), error.item)
    if not changed:
        return error
    elsewhere = "start in another directory (--output_dir), or " if trains else ""
    return UserError(
        f"the checkpoint at step {error.step} in {run} does not fit: {set_back(changed, elsewhere)}"
    )


def set_back(changed: Mapping[str, tuple[str, str]], elsewhere: str = "") -> str:
    """Returns what differs, and the flags that set it back.

    Args:
        changed: earlier and present values by name, at least one.
        elsewhere: what could be done instead.
    """
    differences = [
        f"{_label(name)} was {_shown(name, old)} and is now {_shown(name, new)}"
        for name, (old, new) in changed.items()
    ]
    more = f", and {len(differences) - _MAX_NAMED} more" if len(differences) > _MAX_NAMED else ""
    back = " ".join(f"--gin.{name}={_quoted(old)}" for name, (old, _) in changed.items())
    them = "it" if len(differences) == 1 else "them"
    return f"{', '.join(differences[:_MAX_NAMED])}{more}; {elsewhere}set {them} back: {back}"


def changed_settings(
    before: Mapping[str, str], now: Mapping[str, str], item: str
) -> dict[str, tuple[str, str]]:
    """Returns the differing settings that affect the arrays of an item, with both values.

    Args:
        before: earlier values by name, including macros.
        now: present values by name, including macros.
        item: `variables` or `optimizer`.
    """
    kind = "Experiment.optimizer" if item == "optimizer" else "Experiment.router"
    found = {}
    if item == "variables":
        shapes = (n for n in before if n.startswith("Model.") and n[6:] not in _WITHOUT_ARRAYS)
        found = _different(before, now, shapes)
    elif before:
        # Frozen parameters have no optimiser state. Before there was this setting, none were.
        defaults = {_FROZEN: "()"}
        found = _different(defaults | dict(before), defaults | dict(now), [_FROZEN])
    old, new = before.get(kind, "None"), now.get(kind, "None")
    if old != new and before:
        return {**found, kind: (old, new)}
    # Settings of the same router or optimiser.
    owner = old.strip("@()") + "."
    return {**found, **_different(before, now, (n for n in before if n.startswith(owner)))}


def _different(
    before: Mapping[str, str], now: Mapping[str, str], names: Iterable[str]
) -> dict[str, tuple[str, str]]:
    pairs = {
        name: (_resolved(before, before[name]), _resolved(now, now[name]))
        for name in names
        if name in now
    }
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def _resolved(facts: Mapping[str, str], value: str) -> str:
    return facts.get(value[1:], value) if value.startswith("%") else value


def _label(name: str) -> str:
    known = {"Experiment.optimizer": "the optimiser", "Experiment.router": "the router"}
    return known.get(name, name)


def _shown(name: str, value: str) -> str:
    return value.strip("@()") if name.startswith("Experiment.") else value


def _quoted(value: str) -> str:
    return f'"{value}"' if set(value) & set("@()' ") else value
