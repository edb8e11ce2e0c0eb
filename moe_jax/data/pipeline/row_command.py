"""The command that makes the cached rows of a configuration."""

import dataclasses
import shlex

from moe_jax.data.config import DataConfig

# Settings that do not decide the rows, or have a flag of their own.
_LEFT_OUT = {"rows_dir", "allow_changed_files", "curriculum", "seed"}


def row_command(config: DataConfig, steps: int | None = None) -> str:
    """Returns the command line that caches the rows of a configuration.

    Args:
        config: configuration of the data.
        steps: number of training steps; None for those of the run or one epoch.
    """
    words = ["moe-jax", "data", "cache", "--rows"]
    words += [f"--steps={steps}"] if steps else []
    words += [f"--seeds={config.seed}"]
    for field in dataclasses.fields(DataConfig):
        value = getattr(config, field.name)
        if field.name in _LEFT_OUT or value == field.default:
            continue
        if field.name == "task" and not isinstance(value, str):
            value = config.rates
        words.append(f"--gin.Data.{field.name}={value}")
    return " ".join(map(shlex.quote, [*words, "--output_dir=NEW_DIR"]))
