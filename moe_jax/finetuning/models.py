"""The trained models that a fine-tuning study starts from."""

import collections
import dataclasses
import os
import re
from collections.abc import Sequence

from moe_jax.compare.plan_rules import bad_names
from moe_jax.errors import UserError, combined
from moe_jax.run_files import CONFIG_FILE
from moe_jax.training.run_directory import run_directory

_NAMED = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9_.-]*)=(?P<path>.+)")


@dataclasses.dataclass(frozen=True)
class PretrainedModel:
    """A trained model, by its run directory.

    Attributes:
        name: its name in the study.
        checkpoint: its run directory; absolute unless it is remote.
        config: path of the configuration that it was trained with.
    """

    name: str
    checkpoint: str
    config: str


def find_models(checkpoints: Sequence[str]) -> list[PretrainedModel]:
    """Finds the models of a study.

    Args:
        checkpoints: run directories, or `NAME=DIR`; without a name, a model has that of its
            directory.

    Raises:
        UserError: for directories that are no runs, and names that are bad or not unique; one in a
            line.
    """
    if not checkpoints:
        raise UserError("which model is to be fine-tuned? Give --checkpoint=RUN")
    models, mistakes = [], []
    for text in checkpoints:
        try:
            models.append(_find(text))
        except UserError as error:
            mistakes.append(str(error))
    counts = collections.Counter(model.name for model in models)
    mistakes += [
        f"{count} checkpoints have the name {name!r}: name them, as in --checkpoint=NAME=DIR"
        for name, count in counts.items()
        if count > 1
    ]
    if mistakes:
        raise combined(mistakes)
    return models


def _find(text: str) -> PretrainedModel:
    match = None if os.path.exists(text) else _NAMED.fullmatch(text)
    path = match["path"] if match else text
    directory = run_directory.find_run(path)
    checkpoint = os.fspath(directory)
    if "://" not in checkpoint:
        checkpoint = os.path.abspath(checkpoint)
    name = match["name"] if match else os.path.basename(checkpoint.rstrip("/"))
    if wrong := bad_names([name]):
        raise UserError(
            f"--checkpoint={text}: {wrong[0]}; give one, as in --checkpoint=NAME={path}"
        )
    return PretrainedModel(name, checkpoint, os.fspath(directory / CONFIG_FILE))
