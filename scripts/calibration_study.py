"""Calibrates models that were trained on uniform random tokens, where a leak cannot hide.

    python scripts/calibration_study.py     prints the table of docs/guides/pools.md

The models are those of the random-token test with a third layer (width 32, 4 experts) and are
trained with expert choice in 300 batches of 64 rows of 8 tokens out of 4. No causal model has an
expected loss below ln 4 = 1.386 nats on new batches. Every pool and seed is a model; thresholds and
predictors are set from 40 new batches, and losses are measured on 20 others.
"""

import argparse
import dataclasses
import statistics

import jax

from moe_jax.compare import leak_test
from moe_jax.compare.leak_test import random_batch
from moe_jax.evaluation.calibration import calibrate_thresholds
from moe_jax.evaluation.causal_gap import CausalVariant, measure_gaps
from moe_jax.evaluation.predictor_fit import fit_predictors
from moe_jax.models.functional import LanguageModel
from moe_jax.routers.expert_choice import ExpertChoice
from moe_jax.routers.predicted_expert_choice import PredictedExpertChoice
from moe_jax.routing.pools import KINDS, Kind, Pool
from moe_jax.training.optimizers import adamw
from moe_jax.training.state import make_state
from moe_jax.training.step import LossConfig, make_train_step

STEPS = 300
CAPACITY_FACTOR = 2.0
MODEL = dataclasses.replace(leak_test.MODEL, num_layers=3)
# Seeds of the tokens that no model is trained on: of the calibration and of the losses.
SAMPLE, HELD_OUT = 1_000_000, 2_000_000
COLUMNS = (
    "loss as trained",
    "causal, before",
    "thresholds",
    "predictor",
    "flipped, before",
    "flipped, thresholds",
    "flipped, predictor",
)


def study(kind: Kind, seeds: int) -> list[list[float]]:
    """Returns for each seed the losses of all routings, and the mean shares of flipped decisions.

    Thresholds belong to the router of training and its moving averages; the predicted router has
    the same parameters, for its predictor is no part of the model.
    """
    router = PredictedExpertChoice(CAPACITY_FACTOR, Pool(kind))
    predicted = LanguageModel(MODEL, router)
    model = predicted.with_router(ExpertChoice(CAPACITY_FACTOR, Pool(kind)))
    causal, by_predictor = model.causal(), predicted.causal()
    optimizer = adamw(lambda step: 3e-3, weight_decay=0.0)
    step = make_train_step(predicted, optimizer, LossConfig(z_loss=0.0))
    sample = [random_batch(SAMPLE, number) for number in range(40)]
    held_out = [random_batch(HELD_OUT, number) for number in range(20)]
    rows = []
    for seed in range(seeds):
        state = make_state(predicted, optimizer, seed)
        for number in range(STEPS):
            state, _ = step(state, random_batch(seed, number))
            jax.block_until_ready(state.step)
        variables = state.variables
        thresholds = calibrate_thresholds(model, variables, sample, CAPACITY_FACTOR).variables
        predictors = fit_predictors(predicted, variables, sample, CAPACITY_FACTOR).variables
        variants = [
            CausalVariant(causal, variables),
            CausalVariant(causal, thresholds),
            CausalVariant(by_predictor, predictors),
        ]
        report = measure_gaps(model, variables, variants, held_out)
        flipped = [statistics.fmean(g.flipped_share for g in gap.layers) for gap in report.gaps]
        rows.append([report.loss, *(gap.loss for gap in report.gaps), *flipped])
    return rows


def cell(values: tuple[float, ...], is_share: bool) -> str:
    """Returns the mean of the seeds and their standard deviation."""
    mean, spread = statistics.fmean(values), statistics.stdev(values)
    return f"{mean:.1%} ± {spread:.1%}" if is_share else f"{mean:.3f} ± {spread:.3f}"


def main() -> None:
    """Prints the table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3, help="models of each pool, at least 2")
    seeds = parser.parse_args().seeds
    print("| pool | " + " | ".join(COLUMNS) + " |")
    print("|---" * (len(COLUMNS) + 1) + "|")
    for kind in KINDS:
        columns = list(zip(*study(kind, seeds), strict=True))
        cells = [cell(values, number > 3) for number, values in enumerate(columns)]
        print(f"| `{kind}` | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
