"""A checkpoint that does not fit the configuration: which settings are to blame."""

import contextlib
from collections.abc import Iterable, Iterator, Mapping

from etils import epath

from moe_jax.errors import UserError
from moe_jax.sharding.processes import config_bindings
from moe_jax.training.run_directory.run_directory import CONFIG_FILE

# Settings of a model that its arrays do not depend on.
_WITHOUT_ARRAYS = (
    "bidirectional_prefix",
    "compute_dtype",
    "dispatch",
    "relative_max_distance",
    "remat",
    "remat_names",
    "scan_layers",
)
_MOST = 6


class CheckpointMismatch(UserError):
    """A checkpoint of another model or optimiser.

    Attributes:
        item: what does not fit: `variables` or `optimizer`.
        step: of the checkpoint.
    """

    def __init__(self, message: str, item: str, step: int):
        super().__init__(message)
        self.item, self.step = item, step


@contextlib.contextmanager
def explain_mismatch(run: epath.Path, now: str, *, trains: bool) -> Iterator[None]:
    """Makes a `CheckpointMismatch` say which settings differ.

    Args:
        run: the run's directory, with the configuration that its checkpoints were made with.
        now: the present configuration.
        trains: whether it is to go on in that directory, and could be started in another.

    Raises:
        UserError: in its place.
    """
    try:
        yield
    except CheckpointMismatch as error:
        raise mismatch_error(error, run, now, trains=trains) from None


def mismatch_error(
    error: CheckpointMismatch, run: epath.Path, now: str, *, trains: bool
) -> UserError:
    """Returns the error with the settings that differ instead of the arrays, if there are any."""
    path = run / CONFIG_FILE
    before = config_bindings(path.read_text()) if path.exists() else {}
    changed = changes(before, config_bindings(now), error.item)
    if not changed:
        return error
    said = [
        f"{_label(name)} was {_shown(name, old)} and is now {_shown(name, new)}"
        for name, (old, new) in changed.items()
    ]
    more = f", and {len(said) - _MOST} more" if len(said) > _MOST else ""
    back = " ".join(f"--gin.{name}={_quoted(old)}" for name, (old, _) in changed.items())
    elsewhere = "start in another directory (--output_dir), or set " if trains else "set "
    them = "it" if len(said) == 1 else "them"
    return UserError(
        f"the checkpoint at step {error.step} in {run} does not fit: {', '.join(said[:_MOST])}"
        f"{more}; {elsewhere}{them} back: {back}"
    )


def changes(
    before: Mapping[str, str], now: Mapping[str, str], item: str
) -> dict[str, tuple[str, str]]:
    """Returns the settings that shape an item's arrays and differ, with both values.

    Args:
        before: values by name, macros among them.
        now: the same.
        item: `variables` or `optimizer`.
    """
    kind = "Experiment.optimizer" if item == "optimizer" else "Experiment.router"
    found = {}
    if item == "variables":
        shapes = (n for n in before if n.startswith("Model.") and n[6:] not in _WITHOUT_ARRAYS)
        found = _different(before, now, shapes)
    old, new = before.get(kind, "None"), now.get(kind, "None")
    if old != new and before:
        return {**found, kind: (old, new)}
    # Of the same router or optimiser.
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
