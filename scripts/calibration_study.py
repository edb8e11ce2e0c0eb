"""Calibrates models that were trained on uniform random tokens, where a leak cannot hide.

    python scripts/calibration_study.py     prints the table of docs/guides/pools.md

The models are very small (3 layers of width 32, 4 experts) and are trained with expert choice in
300 batches of 64 rows of 8 tokens out of 4. No causal model has an expected loss below ln 4 =
1.386 nats on new batches. Every pool and seed is a model; thresholds and predictors are set from 40
new batches, and losses are measured on 20 others.
"""

import argparse
import statistics

import jax
import numpy as np

from moe_jax.data.batch import Batch
from moe_jax.evaluation.calibration import calibrate_thresholds
from moe_jax.evaluation.causal_gap import CausalVariant, measure_gaps
from moe_jax.evaluation.predictor_fit import fit_predictors
from moe_jax.models.config import ModelConfig
from moe_jax.models.functional import LanguageModel
from moe_jax.routers.expert_choice import ExpertChoice
from moe_jax.routers.predicted_expert_choice import PredictedExpertChoice
from moe_jax.routing.pools import KINDS, Kind, Pool
from moe_jax.training.optimizers import adamw
from moe_jax.training.state import make_state
from moe_jax.training.step import LossConfig, make_train_step

VOCABULARY, LENGTH, ROWS, STEPS = 4, 8, 64, 300
CAPACITY_FACTOR = 2.0
MODEL = ModelConfig(
    vocab_size=VOCABULARY + 1,
    num_layers=3,
    d_model=32,
    num_heads=2,
    head_dim=16,
    d_ff=48,
    num_experts=4,
    moe_every=1,
    position="rotary",
    dispatch="oracle",
)
COLUMNS = (
    "loss as trained",
    "causal, before",
    "thresholds",
    "predictor",
    "flipped, before",
    "flipped, thresholds",
    "flipped, predictor",
)


def random_batch(seed: int) -> Batch:
    """Returns rows of uniform random tokens."""
    targets = np.random.default_rng(seed).integers(1, VOCABULARY + 1, (ROWS, LENGTH))
    inputs = np.pad(targets[:, :-1], ((0, 0), (1, 0)))
    ones = np.ones(targets.shape, np.float32)
    return Batch(inputs.astype(np.int32), targets.astype(np.int32), ones)


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
    sample = [random_batch(1_000_000 + number) for number in range(40)]
    held_out = [random_batch(2_000_000 + number) for number in range(20)]
    rows = []
    for seed in range(seeds):
        state = make_state(predicted, optimizer, seed)
        for number in range(STEPS):
            state, _ = step(state, random_batch(10_000 * seed + number))
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
