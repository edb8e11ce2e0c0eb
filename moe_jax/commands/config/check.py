"""`moe-jax config check`: mistakes in a configuration, found without data or devices."""

from typing import Any

from moe_jax import config, experiments
from moe_jax.commands.console import line_printer, make_console
from moe_jax.config_source import ConfigSource
from moe_jax.errors import UserError, combined
from moe_jax.runs import dry_run


def check(source: ConfigSource) -> dict[str, Any]:
    """Checks a configuration, or each of the package's runs if no file is given.

    Raises:
        UserError: for all mistakes, one in a line.
    """
    say = line_printer(make_console())
    runs = [source] if source.files else [source.replace_files(file) for file in _shipped_runs()]
    wrong: list[str] = []
    for checked in runs:
        name = ", ".join(checked.files)
        try:
            found = dry_run.mistakes(experiments.load(checked))
        except UserError as error:
            found = str(error).splitlines()
        if found:
            wrong += [f"{name}: {line}" for line in found]
            continue
        say(f"ok  {name}")
        for unused in config.unused():
            say(f"    not used in this configuration: {unused}")
    if wrong:
        raise combined(wrong)
    return {"checked": [list(checked.files) for checked in runs]}


def _shipped_runs() -> list[str]:
    return [file for file in config.shipped() if file.startswith("runs/")]
