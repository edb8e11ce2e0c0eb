"""Where the parameters of a new run come from: a checkpoint of another run, as in fine-tuning."""

import dataclasses
import re
from typing import Annotated, Literal, get_args

from moe_jax.errors import UserError, nearest
from moe_jax.registration import configurable
from moe_jax.settings import Path, Settings, counted, rule

# A step of a checkpoint: its number, the latest, or the best by `Checkpoints.best_is`.
StepName = Literal["latest", "best"]
Step = int | StepName
_CHECKPOINT = re.compile(r"(?P<run>.*)/checkpoints/(?P<step>\d+)/?")


@configurable
@dataclasses.dataclass(frozen=True)
class InitialConfig(Settings, called="Initial"):
    """The checkpoint of another run that a new run starts from, at step 0.

    The parameters are taken, and the router state that both routers have; the router, its pool and
    its capacity may differ. A run that has a checkpoint of its own goes on from that, and does not
    read this one.

    Attributes:
        checkpoint: a run directory, local or `gs://...`, or RUN/checkpoints/STEP; None to start
            from random parameters.
        step: the step of its checkpoint, `latest`, or `best` (by the run's `Checkpoints.best_is`).
        optimizer: `fresh`, or `continued` to take the state of the optimiser, too, which must be
            the same with the same trained parameters. Learning-rate schedules start at step 0
            either way.
    """

    checkpoint: Annotated[Path | None, "to start from random parameters"] = None
    step: Annotated[int, counted()] | StepName = "latest"
    optimizer: Literal["fresh", "continued"] = "fresh"

    @staticmethod
    @rule
    def _one_step_is_named(checkpoint: str | None, step: Step) -> None:
        if checkpoint is not None:
            split_checkpoint(checkpoint, None if step == "latest" else step, "Initial.step")


def split_checkpoint(
    path: str, step: Step | None = None, setting: str = "step"
) -> tuple[str, Step | None]:
    """Splits the path of a run, or of one of its checkpoints, into the run and the step.

    Args:
        path: RUN or RUN/checkpoints/STEP.
        step: the step that is asked for besides.
        setting: what names it, for messages.

    Raises:
        UserError: if the path names another step than `step`.
    """
    match = _CHECKPOINT.fullmatch(path)
    if match is None:
        return path, step
    if step is not None and step != int(match["step"]):
        raise UserError(
            f"{path} is the checkpoint of step {match['step']}, not {step}: leave out {setting}"
        )
    return match["run"], int(match["step"])


def check_step(step: Step | None) -> Step | None:
    """Returns a step if it is a number, `latest`, `best` or None.

    Raises:
        UserError: for another text.
    """
    if isinstance(step, str) and step not in get_args(StepName):
        known = get_args(StepName)
        raise UserError(
            f"step = {step!r} is unknown; known: a number, {', '.join(known)}."
            + nearest(step, known)
        )
    return step
