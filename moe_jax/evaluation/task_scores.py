"""Settings of the scores of tasks with inputs and targets."""

import dataclasses
from typing import Annotated

from moe_jax.registration import configurable
from moe_jax.settings import Settings, counted


@configurable
@dataclasses.dataclass(frozen=True)
class TaskScores(Settings):
    """Settings of the scores of tasks with inputs and targets.

    Attributes:
        in_training: compute the scores of the task at every evaluation during training too.
        examples: number of examples of each task, the first of the split; 0 for all.
        split: the split; '' for `Data.eval_split`.
    """

    in_training: bool = False
    examples: Annotated[int, counted("all")] = 0
    split: str = ""
