"""Calibrated models and the run directories that they are written to."""

import contextlib
import dataclasses
import os
import uuid
from collections.abc import Iterator
from typing import Any

from etils import epath

from moe_jax.errors import UserError
from moe_jax.evaluation.calibration import Calibration, read_thresholds
from moe_jax.evaluation.causal_gap import GapReport
from moe_jax.evaluation.perplexity import Perplexity
from moe_jax.evaluation.predictor_fit import read_predictors
from moe_jax.runs.calibration_setup import CalibrationSetup
from moe_jax.runs.device_mesh import mesh_sizes
from moe_jax.runs.loading import Run, TrainedModel
from moe_jax.sharding.processes import barrier, gather, is_main, propagate_errors
from moe_jax.strict_json import dumps
from moe_jax.training.checkpointing.model_checkpoint import save_model
from moe_jax.training.metric_writers.jsonl_writer import METRICS_FILE
from moe_jax.training.run_directory import data_manifest, run_directory
from moe_jax.training.run_directory.atomic_file import write_atomically

TRAIN_SPLIT = "train"
DEFAULT_TOKENS = 131_072


@dataclasses.dataclass(frozen=True)
class CalibrationSample:
    """What the thresholds are set from.

    Attributes:
        split: the split of the run's task: `train` for the first training batches, or another one,
            read in order. It is never the split that the losses are reported on.
        tokens: number of tokens; the last batch is used whole.
    """

    split: str = TRAIN_SPLIT
    tokens: int = DEFAULT_TOKENS


@dataclasses.dataclass(frozen=True)
class CalibratedRun:
    """A calibrated model and what it was measured to do on held-out data.

    Attributes:
        setup: the run that it was made from, and the method.
        trained: the calibrated model, as it is written.
        calibration: how it was set.
        sample: what they were set from.
        report: the model routed as trained, causally before, and causally after the calibration.
        bytes: UTF-8 bytes of the text of the report's targets.
    """

    setup: CalibrationSetup
    trained: TrainedModel
    calibration: Calibration
    sample: CalibrationSample
    report: GapReport
    bytes: int

    @property
    def perplexity(self) -> Perplexity:
        """The losses after the calibration, as `moe-jax eval` computes them."""
        report, (_, after) = self.report, self.report.gaps
        evaluated = Perplexity(report.loss, after.loss, report.tokens, self.bytes)
        return dataclasses.replace(
            evaluated, mean_experts=report.mean_experts, causal_mean_experts=after.mean_experts
        )

    def as_dict(self) -> dict[str, Any]:
        """Returns all results by name, as `--json` and `run.json` have them."""
        run, (before, after) = self.trained.run, self.report.gaps
        loss = self.report.loss
        layers = zip(
            run.experiment.model.moe_layers,
            before.layers,
            after.layers,
            self._set(),
            strict=True,
        )
        return {
            "step": self.trained.step,
            "method": self.setup.method,
            "capacity_factor": self.setup.capacity_factor,
            "split": self.sample.split,
            "tokens": self.calibration.tokens,
            "tokens_per_expert": self.calibration.tokens_per_expert,
            "passes": [vars(one) for one in self.calibration.passes],
            "eval_split": run.experiment.data.eval_split,
            "losses": {
                "trained": loss,
                "causal_before": before.loss,
                "causal_after": after.loss,
                "gap_before": before.loss / loss - 1.0,
                "gap_after": after.loss / loss - 1.0,
            },
            "layers": [
                {
                    "layer": number,
                    "before": vars(old),
                    "after": vars(new),
                    self.setup.method: values,
                }
                for number, old, new, values in layers
            ],
        }

    def _set(self) -> list[Any]:
        """Returns the thresholds [E] or predictors [E, E + 1] of every layer."""
        if self.setup.method == "predictor":
            values: list[Any] = read_predictors(self.calibration.variables).tolist()
            return values
        values = read_thresholds(self.calibration.variables).tolist()
        return values


def output_directory(run: Run, output_dir: str | None) -> epath.Path:
    """Returns the directory of the calibrated run, by default RUN-calibrated beside the run.

    Raises:
        UserError: if it has files that are not those of an earlier calibration of the same run.
    """
    if output_dir is None:
        directory = run.directory.parent / f"{run.directory.name}-calibrated"
    else:
        directory = epath.Path(output_dir).expanduser()
        directory = directory if "://" in output_dir else directory.absolute()
    with propagate_errors():
        _check_directory(directory, run.directory)
    return directory


def _check_directory(directory: epath.Path, run: epath.Path) -> None:
    own, other = (os.path.realpath(path) for path in (run, directory))
    if f"{own}/".startswith(f"{other}/") or f"{other}/".startswith(f"{own}/"):
        raise UserError(
            f"--output_dir={directory} is the run {run}, or inside or around it, and a "
            "calibration never changes the run: give another directory"
        )
    try:
        if not directory.exists() or (directory.is_dir() and not any(directory.iterdir())):
            return
        made_from = run_directory.read_record(directory).get("calibration", {}).get("checkpoint")
    except OSError as error:
        raise UserError(f"cannot look at {directory}: {error.strerror or error}") from None
    if made_from != str(run):
        raise UserError(
            f"{directory} is something else than a calibration of {run}, which may be written "
            "over: give another --output_dir"
        )


def write_run(calibrated: CalibratedRun, directory: epath.Path) -> None:
    """Writes a run directory with the calibrated model; all of it appears at once, or nothing.

    All processes of a run must call it.

    Raises:
        UserError: if it cannot be written.
    """
    trained, run = calibrated.trained, calibrated.trained.run
    unique = gather(uuid.uuid4().hex[:8])[0]
    partial = directory.parent / f".{directory.name}-{unique}"
    with _removed(partial):
        with propagate_errors(), _reported(directory):
            if is_main():
                partial.mkdir(parents=True)
        barrier("calibrated run")
        checkpoints = partial / run_directory.CHECKPOINTS
        save_model(checkpoints, trained.step, calibrated.calibration.variables)
        barrier("calibrated checkpoint")
        with propagate_errors(), _reported(directory):
            if is_main():
                _write_files(calibrated, partial)
                _check_directory(directory, run.directory)
                _replace(directory, partial)
    barrier("end of calibration")


def _write_files(calibrated: CalibratedRun, directory: epath.Path) -> None:
    """Writes the configuration, `run.json` and the evaluation."""
    trained, run = calibrated.trained, calibrated.trained.run
    run_directory.write_config(directory, run.config)
    for name in (run_directory.RUN_FILE, data_manifest.FILES_FILE):
        if (run.directory / name).exists():
            (run.directory / name).copy(directory / name)
    run_directory.write_record(
        directory,
        mesh=mesh_sizes(trained.model.partition),
        calibration={"checkpoint": str(run.directory), **calibrated.as_dict()},
    )
    record = {"kind": "eval", "step": trained.step, **calibrated.perplexity.as_dict()}
    write_atomically(directory / METRICS_FILE, dumps(record) + "\n")


def _replace(directory: epath.Path, new: epath.Path) -> None:
    """Renames a directory over an earlier calibration, or to a name that is free or empty."""
    old = new.parent / f"{new.name}-old"
    if directory.exists():
        directory.rename(old)
    new.rename(directory)
    if old.exists():
        old.rmtree()


@contextlib.contextmanager
def _removed(partial: epath.Path) -> Iterator[None]:
    """A context manager that removes what is left of a directory at the end."""
    try:
        yield
    finally:
        if is_main() and partial.exists():
            partial.rmtree(missing_ok=True)


@contextlib.contextmanager
def _reported(directory: epath.Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot write {directory}: {error.strerror or error}") from None
