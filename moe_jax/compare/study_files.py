"""Which gin files are plans of many runs, such as studies, rather than runs."""

import dataclasses

from moe_jax import config
from moe_jax.config_source import ConfigSource
from moe_jax.errors import UserError

# The settings that make a gin file a plan, with the command that carries it out and an example.
PLANS = {
    "Study": ("compare", "runs/compare_quick.gin"),
    "Finetuning": ("finetune", "runs/finetune.gin"),
}
_WORDS = {"Study": "study", "Finetuning": "fine-tuning study"}


def plan_kind(source: ConfigSource) -> str | None:
    """Returns the settings that make gin files a plan, such as `Study`.

    Returns:
        None for the files of a run, and for files that cannot be read.
    """
    try:
        config.parse(dataclasses.replace(source, bindings=()))
    except UserError:
        return None
    names = {selector.rpartition(".")[2] for _, selector, _ in config.locations}
    return next((kind for kind in PLANS if kind in names), None)


def check_is_plan(source: ConfigSource, kind: str) -> None:
    """Refuses gin files that are no plan of a kind; what cannot be read is left to its reader.

    Raises:
        UserError: in one line.
    """
    try:
        config.parse(dataclasses.replace(source, bindings=()))
    except UserError:
        return
    found = plan_kind(source)
    if not source.files or found == kind:
        return
    files = ", ".join(source.files)
    if found is not None:
        raise UserError(f"{files} is a {_WORDS[found]}: use `moe-jax {PLANS[found][0]}`")
    raise UserError(f"{files} is no {_WORDS[kind]}: it sets no {kind}.*; see {PLANS[kind][1]}")
