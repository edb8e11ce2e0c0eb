"""Write metrics to Weights & Biases.

Errors are raised; `multi_writer.MultiWriter` keeps them from stopping training.
"""

import hashlib
from collections.abc import Mapping

import numpy as np
from etils import epath

from moe_jax.training.metric_writers.flatten import flatten_metrics


class WandbWriter:
    """Writes to a run of Weights & Biases, the same for all attempts of a run directory.

    `WANDB_MODE=offline` writes only to RUN/wandb, for a later `wandb sync`.
    """

    name = "Weights & Biases"

    def __init__(self, directory: epath.Path, project: str, name: str | None):
        import wandb

        local = "://" not in str(directory)
        self._run = wandb.init(
            project=project,
            name=name or directory.name,
            # Derived from the directory, so that a resumed run continues the same run there.
            id=hashlib.sha256(str(directory).encode()).hexdigest()[:16],
            resume="allow",
            dir=str(directory) if local else None,
        )
        # An own step metric: that of W&B cannot decrease, as the step does after a restart.
        self._run.define_metric("*", step_metric="step")

    def write(self, step: int, kind: str, metrics: Mapping[str, np.ndarray]) -> None:
        """Writes the metrics of one step."""
        self._run.log({"step": step, **flatten_metrics(kind, metrics)})

    def write_text(self, name: str, text: str) -> None:
        """Writes a text to the configuration of the run."""
        self._run.config.update({name: text}, allow_val_change=True)

    def close(self) -> None:
        """Finishes the run."""
        self._run.finish()
