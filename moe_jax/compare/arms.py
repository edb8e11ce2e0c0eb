"""The arms of a study: their configurations, checked before anything is trained."""

import dataclasses
from collections.abc import Mapping, Sequence

from moe_jax import config, experiments
from moe_jax.compare.fingerprints import resolved_settings
from moe_jax.compare.run_config import describe_model
from moe_jax.compare.study import LoadedStudy, is_file
from moe_jax.config_source import ConfigSource
from moe_jax.errors import UserError, combined
from moe_jax.experiments import Experiment


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
    rates = loaded.study.rates(name)
    setting = loaded.study.rate_setting
    if rates and setting not in settings:
        known = [n for n in settings if n.split(".")[0] in ("WarmupCosine", "InverseSquareRoot")]
        raise UserError(
            f"Study.rate_setting = {setting!r} is not a setting that is used; such are "
            f"{', '.join(known) or 'none of a known schedule'}"
        )
    return Arm(name, loaded.study.description(name), source, experiment, settings)
