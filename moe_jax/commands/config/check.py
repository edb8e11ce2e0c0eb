"""`moe-jax config check`: mistakes in a configuration, found without data or devices."""

from collections.abc import Iterator
from typing import Any

from moe_jax import config, experiments
from moe_jax.commands.console import line_printer, make_console
from moe_jax.compare.arms import load_arms
from moe_jax.compare.study import load_study
from moe_jax.compare.study_files import plan_kind
from moe_jax.config_source import ConfigSource
from moe_jax.errors import UserError, combined
from moe_jax.finetuning.plan import load_finetuning
from moe_jax.runs import dry_run


def check(source: ConfigSource) -> dict[str, Any]:
    """Checks a configuration, or each of the package's runs if no file is given.

    Of a study (`moe_jax.compare`), it checks the configuration of every arm; of a fine-tuning study
    its own settings, as its runs need a checkpoint.

    Raises:
        UserError: for all mistakes, one in a line.
    """
    say = line_printer(make_console())
    runs = [source] if source.files else [source.replace_files(file) for file in _shipped_runs()]
    wrong: list[str] = []
    for checked in runs:
        name = ", ".join(checked.files)
        try:
            found, unused = _CHECKS[plan_kind(checked)](checked)
        except UserError as error:
            found, unused = str(error).splitlines(), []
        if found:
            wrong += [f"{name}: {line}" for line in found]
            continue
        say(f"ok  {name}")
        for setting in unused:
            say(f"    not used in this configuration: {setting}")
    if wrong:
        raise combined(wrong)
    return {"checked": [list(checked.files) for checked in runs]}


def _check_run(source: ConfigSource) -> tuple[list[str], list[str]]:
    """Returns the mistakes in the configuration of a run, and the settings that nothing uses."""
    return dry_run.mistakes(experiments.load(source)), config.unused()


def _check_study(source: ConfigSource) -> tuple[list[str], list[str]]:
    """Returns the mistakes in the arms of a study; no setting of a study is unused."""
    return list(_mistakes_in_arms(source)), []


def _check_finetuning(source: ConfigSource) -> tuple[list[str], list[str]]:
    """Checks the settings of a fine-tuning study."""
    load_finetuning(source)
    return [], []


def _mistakes_in_arms(source: ConfigSource) -> Iterator[str]:
    for name, arm in load_arms(load_study(source)).items():
        for line in dry_run.mistakes(arm.experiment):
            yield f"arm {name}: {line}"


_CHECKS = {None: _check_run, "Study": _check_study, "Finetuning": _check_finetuning}


def _shipped_runs() -> list[str]:
    return [file for file in config.shipped() if file.startswith("runs/")]
