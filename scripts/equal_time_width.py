"""Finds the width of a dense model whose step takes as long as that of a study's baseline.

    python scripts/equal_time_width.py --gin_file=runs/compare.gin --widths=1024,1536,2048,3072

The dense models have no experts and are otherwise like the baseline. Their steps and the baseline's
are timed in turn, on the devices of this machine. The width at which the median ratio of the times
is 1 is interpolated linearly; it is the value of EQUAL_TIME_WIDTH in a file like
studies/tiny_8e.gin. A study times its arms again and reports the ratio.
"""

import argparse
import dataclasses
import statistics
import sys

import numpy as np

from moe_jax.compare.arms import load_arms
from moe_jax.compare.study import load_study
from moe_jax.compare.timing_process import device_text, time_arms
from moe_jax.config_source import ConfigSource
from moe_jax.experiments import Experiment

BASELINE = "baseline"


def dense(baseline: Experiment, width: int) -> Experiment:
    """Returns a configuration without experts and with dense feed-forwards of a width."""
    model = dataclasses.replace(baseline.model, num_experts=0, num_shared_experts=0, d_ff=width)
    return dataclasses.replace(baseline, model=model, router=None)


def interpolated(widths: list[int], ratios: list[float]) -> float | None:
    """Returns the width at which a line through the ratios is 1; None if it is not among them."""
    slope, constant = np.polyfit(widths, ratios, 1)
    width = (1.0 - constant) / slope
    return float(width) if slope > 0 and min(widths) <= width <= max(widths) else None


def main() -> int:
    """Prints the ratios and the width."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gin_file", action="append", required=True, help="files of the study")
    parser.add_argument("--widths", default="1024,1536,2048,3072", help="values of Model.d_ff")
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args()
    widths = [int(width) for width in args.widths.split(",")]
    loaded = load_study(ConfigSource(args.gin_file))
    baseline = load_arms(loaded)[loaded.study.baseline].experiment
    arms = {BASELINE: baseline, **{str(width): dense(baseline, width) for width in widths}}
    times = time_arms(arms, args.rounds, lambda stage: print(stage, file=sys.stderr))
    ratios = [
        statistics.median(a / b for a, b in zip(times[str(w)], times[BASELINE], strict=True))
        for w in widths
    ]
    print(f"{loaded.study.baseline}: {statistics.median(times[BASELINE]):.4f} s, {device_text()}")
    for width, ratio in zip(widths, ratios, strict=True):
        print(f"dense, Model.d_ff = {width}: {ratio:.3f} of it")
    found = interpolated(widths, ratios)
    print(f"EQUAL_TIME_WIDTH = {round(found)}" if found else "not among these widths: give others")
    return 0 if found else 1


if __name__ == "__main__":
    sys.exit(main())
