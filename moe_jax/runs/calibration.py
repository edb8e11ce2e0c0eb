"""Calibration of the thresholds of a trained run.

The thresholds are set from training texts, or from a named split, and never from the split on which
the losses before and after are reported.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable
from typing import Any

from moe_jax.data.batch import Batch
from moe_jax.data.pipeline.batch_source import open_source
from moe_jax.data.pipeline.device_batches import train_batches
from moe_jax.errors import UserError
from moe_jax.evaluation.calibration import calibrate_thresholds
from moe_jax.evaluation.causal_gap import CausalVariant, measure_gaps
from moe_jax.evaluation.perplexity import target_bytes
from moe_jax.evaluation.predictor_fit import fit_predictors
from moe_jax.experiments import Experiment
from moe_jax.routing.capacity import expert_choice_capacity
from moe_jax.runs.calibrated_run import TRAIN_SPLIT, CalibratedRun, CalibrationSample
from moe_jax.runs.calibration_setup import CalibrationSetup, adopt
from moe_jax.runs.evaluation import read_evaluation_data
from moe_jax.runs.loading import Run, TrainedModel
from moe_jax.sharding.partition import Partition
from moe_jax.sharding.processes import propagate_errors

# With k tokens per expert, sampling gives the load a relative error of about 1 / sqrt(k).
LEAST_TOKENS_PER_EXPERT = 100


def read_sample(run: Run, sample: CalibrationSample, partition: Partition) -> list[Batch]:
    """Reads the batches that the thresholds are set from, placed on the devices.

    All processes of a run must call it.

    Raises:
        UserError: if the split is the one that losses are reported on or does not exist, or if it
            has too few tokens.
    """
    with propagate_errors():
        data, experiment = run.experiment.data, run.experiment
        if sample.split == data.eval_split:
            raise UserError(
                f"--split={sample.split} is the split that the losses are reported on "
                "(Data.eval_split): thresholds that are set on it would be tested on the same "
                f"texts; give another, such as --split={TRAIN_SPLIT}, or another Data.eval_split"
            )
        per_batch = data.batch_size * data.sequence_length
        _check_tokens(experiment, sample.tokens, "--tokens asks for")
        count = -(-sample.tokens // per_batch)
        if sample.split == TRAIN_SPLIT:
            data = dataclasses.replace(data, curriculum=None)
            source = open_source(data)
            source.check_steps(count)
            batches = itertools.islice(train_batches(source, data, partition), count)
            return list(batches)
        # Cached rows have the training split and that of evaluation only.
        data = dataclasses.replace(
            data, eval_split=sample.split, eval_batches=count, rows_dir=None, curriculum=None
        )
        found = open_source(data).eval_batches()
        return [partition.place_rows(batch) for batch in found]


def _check_tokens(experiment: Experiment, tokens: int, what: str) -> None:
    router: Any = experiment.active_router
    experts = experiment.model.num_experts
    share = router.capacity_factor / experts
    try:
        found = expert_choice_capacity(tokens, router.capacity_factor, experts)
    except UserError:
        found = 0
    if found < LEAST_TOKENS_PER_EXPERT:
        raise UserError(
            f"{what} {tokens:,} tokens, of which each of {experts} experts takes {found} at a "
            f"capacity factor of {router.capacity_factor:g}: too few for a threshold; give at "
            f"least {math.ceil(LEAST_TOKENS_PER_EXPERT / share):,}"
        )


def calibrate(
    setup: CalibrationSetup,
    trained: TrainedModel,
    sample: CalibrationSample,
    say: Callable[[str], object] = lambda line: None,
) -> CalibratedRun:
    """Sets the causal routing of a trained model and measures it before and after, held out.

    All processes of a run must call it.

    Args:
        setup: the run and the method.
        trained: the model of `setup.trained`.
        sample: what to set thresholds or predictors from.
        say: prints a line about data that have changed since training.

    Raises:
        UserError: as `read_sample`, and if the data cannot be read.
    """
    model, variables = trained.model, trained.variables
    batches = read_sample(setup.trained, sample, model.partition)
    result = adopt(trained, setup.result)
    calibration = calibrate_thresholds if setup.method == "thresholds" else fit_predictors
    fitted = calibration(result.model, result.variables, batches, setup.capacity_factor)
    _check_tokens(trained.run.experiment, fitted.tokens, f"the split {sample.split!r} has")
    held_out = read_evaluation_data(trained.run)
    for note in held_out.notes:
        say(note)
    variants = [
        CausalVariant(model.causal(), variables),
        CausalVariant(result.model.causal(), fitted.variables),
    ]
    report = measure_gaps(model, variables, variants, held_out.batches)
    text = target_bytes(held_out.batches, held_out.bytes_of_token)
    written = dataclasses.replace(result, variables=fitted.variables)
    return CalibratedRun(setup, written, fitted, sample, report, text)
