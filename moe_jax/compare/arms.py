"""The arms of a study: their configurations, checked before anything is trained."""

import dataclasses
from collections.abc import Mapping, Sequence

import gin

from moe_jax import config, experiments
from moe_jax.compare.fingerprints import resolved_settings
from moe_jax.compare.plan_files import is_file
from moe_jax.compare.run_config import describe_model
from moe_jax.compare.study import LoadedStudy
from moe_jax.config_source import ConfigSource
from moe_jax.errors import UserError, combined
from moe_jax.experiments import Experiment
from moe_jax.gin_errors import MACRO

# A setting by scope, name, parameter, and item of the dictionary whose items are set one by one.
_Key = tuple[str, str, str, str]
_MERGED = ("moe_jax.Loss", "weights")


@dataclasses.dataclass(frozen=True)
class Arm:
    """An arm of a study.

    Attributes:
        name: its name.
        description: what it is in a few words.
        source: its gin files and bindings, without seeds and learning rate.
        experiment: its validated configuration.
        settings: all values that it uses, as gin writes them, by name.
    """

    name: str
    description: str
    source: ConfigSource
    experiment: Experiment
    settings: Mapping[str, str]


def load_arms(loaded: LoadedStudy) -> dict[str, Arm]:
    """Loads and checks the configurations of all arms.

    Raises:
        UserError: for all mistakes in all arms, one in a line; each names its arm unless all arms
            have it.
    """
    arms: dict[str, Arm] = {}
    mistakes: dict[str, list[str]] = {}
    for name in loaded.study.arms:
        try:
            arms[name] = _load(loaded, name)
        except UserError as error:
            for line in str(error).splitlines():
                mistakes.setdefault(line, []).append(name)
    if mistakes:
        total = len(loaded.study.arms)
        raise combined(
            line if len(names) == total else f"arm {', '.join(names)}: {line}"
            for line, names in mistakes.items()
        )
    return arms


def arm_source(loaded: LoadedStudy, name: str) -> ConfigSource:
    """Returns gin files and bindings of an arm: the common ones, its own, the command line's."""
    items = [*loaded.study.common, *loaded.study.arms[name]]
    return ConfigSource(
        tuple(item for item in items if is_file(item)),
        (*(item for item in items if not is_file(item)), *loaded.bindings),
        loaded.search_paths,
    )


def load_settings(source: ConfigSource) -> tuple[Experiment, dict[str, str]]:
    """Loads a configuration; returns the experiment, and all values that it uses by name.

    Raises:
        UserError: for mistakes in it.
    """
    experiment = experiments.load(source)
    return experiment, resolved_settings(config.operative())


def matching_notes(arms: Sequence[Arm], matched_by: str) -> list[str]:
    """Returns a note if arms that are matched by slots or FLOPs do not have equal ones."""
    if matched_by == "slots":
        values = {arm.name: describe_model(arm.experiment, None).slots_per_token for arm in arms}
        what = "expert slots per token"
    elif matched_by == "flops":
        values = {arm.name: describe_model(arm.experiment, None).flops_per_token for arm in arms}
        what = "active FLOPs per token"
    else:
        return []
    low, high = min(values.values()), max(values.values())
    if high <= low * 1.001:
        return []
    listed = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
    return [f"the arms' {what} differ: {listed}; the answer counts them, not the steps"]


def _load(loaded: LoadedStudy, name: str) -> Arm:
    source = arm_source(loaded, name)
    experiment, settings = load_settings(source)
    _check_order(loaded, name)
    rates = loaded.study.rates(name)
    setting = loaded.study.rate_setting
    if rates and setting not in settings:
        known = [n for n in settings if n.split(".")[0] in ("WarmupCosine", "InverseSquareRoot")]
        raise UserError(
            f"Study.rate_setting = {setting!r} is not a setting that is used; such are "
            f"{', '.join(known) or 'none of a known schedule'}"
        )
    return Arm(name, loaded.study.description(name), source, experiment, settings)


def _check_order(loaded: LoadedStudy, name: str) -> None:
    """Refuses files of an arm that set what a common binding sets.

    Gin reads all files before all bindings, so that the common binding would win. What the arm's
    own bindings or those of the command line set is not in doubt.

    Raises:
        UserError: in one line, naming the settings and the files.
    """
    common, own = loaded.study.common, loaded.study.arms[name]
    bindings = [item for item in common if not is_file(item)]
    files = [item for item in own if is_file(item)]
    if not bindings or not files:
        return
    later = _values(loaded, [item for item in own if not is_file(item)] + [*loaded.bindings])
    shared = _values(loaded, bindings).keys() - later.keys()
    found = _values(loaded, files)
    if hidden := sorted(shared & found.keys()):
        raise UserError(
            f"{_setting(hidden[0])} is set by a binding of Study.common, which would win over "
            f"{found[hidden[0]]}: all files are read before all bindings. Make it a file of "
            "Study.common, or a binding of each arm"
        )


def _values(loaded: LoadedStudy, items: Sequence[str]) -> dict[_Key, str]:
    """Returns where items set values, such as `my.gin, line 3`, by setting."""
    source = ConfigSource(
        tuple(item for item in items if is_file(item)),
        tuple(item for item in items if not is_file(item)),
        loaded.search_paths,
    )
    try:
        config.parse(source)
    except UserError:  # The items need others; together they are valid.
        return {}
    found: dict[_Key, str] = {}
    for name, location in config.locations.items():
        is_merged = name == ("", *_MERGED)
        for item in gin.query_parameter(".".join(_MERGED)) if is_merged else [""]:
            found[*name, str(item)] = location.text
    return found


def _setting(key: _Key) -> str:
    scope, selector, parameter, item = key
    if selector == MACRO:
        return scope
    name = f"{selector.rpartition('.')[2]}.{parameter}" + (f"[{item!r}]" if item else "")
    return f"{scope}/{name}" if scope else name
