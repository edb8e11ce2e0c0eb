"""Settings of the metric writers."""

import dataclasses
import importlib.util
import sys

from moe_jax.errors import UserError
from moe_jax.registration import configurable
from moe_jax.settings import Name, Settings, rule


@configurable
@dataclasses.dataclass(frozen=True)
class WriterConfig(Settings, called="Writers"):
    """Metric writers to use in addition to `metrics.jsonl`.

    Attributes:
        tensorboard: write event files of TensorBoard.
        wandb_project: project of Weights & Biases; None to not use it.
        wandb_name: name of the run in Weights & Biases; the name of its directory by default.
    """

    tensorboard: bool = True
    wandb_project: Name | None = None
    wandb_name: Name | None = None

    @staticmethod
    @rule
    def _name_is_of_a_project(wandb_name: str | None, wandb_project: str | None) -> None:
        if wandb_name is not None and wandb_project is None:
            raise UserError("Writers.wandb_name needs Writers.wandb_project")


def check_installed(config: WriterConfig) -> None:
    """Checks that the packages of the requested writers are installed.

    Raises:
        UserError: saying how to install a missing package.
    """
    if config.wandb_project is not None and not _is_installed("wandb"):
        raise UserError(
            "Writers.wandb_project needs the package wandb: pip install 'moe_jax[wandb]'"
        )


def _is_installed(package: str) -> bool:
    return package in sys.modules or importlib.util.find_spec(package) is not None
