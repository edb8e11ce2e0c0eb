#!/usr/bin/env python3
"""Prints how often the 95% interval of a speed-up contains the true one, as a Markdown table.

    python scripts/coverage.py                    1,000 studies a case, about a minute
    python scripts/coverage.py --studies=10000

The studies are synthetic, with a known speed-up: see tests/helpers/synthetic_studies.py. It fails
if an interval covers less than 93%, or if arms that are equal are called different in more than 7%.
"""

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests" / "helpers")]

from interval_coverage import all_cases, measure  # noqa: E402

LEAST_COVERED, MOST_DIFFERENT = 0.93, 0.07


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=int, default=1000, help="studies per case")
    parser.add_argument("--seed", type=int, default=0, help="seed of the synthetic studies")
    arguments = parser.parse_args()
    rows, failures = [], 0
    cases = all_cases()
    for index, case in enumerate(cases):
        print(f"\rcase {index + 1} of {len(cases)}", end="", file=sys.stderr, flush=True)
        found = measure(case, arguments.studies, arguments.seed)
        is_wrong = case.speed_up == 1 and found.different > MOST_DIFFERENT
        failures += is_wrong or found.covered < LEAST_COVERED
        rows.append(
            f"| {case.words} | {case.evaluations} | {case.speed_up} | {case.seeds} "
            f"| {found.covered:.1%} | {found.different:.1%} | {100 * found.bias:+.2f}% |"
        )
    print(file=sys.stderr)
    print("| curve | evaluations | true speed-up | seeds | covered | p < 0.05 | bias |")
    print("|---|---|---|---|---|---|---|")
    print("\n".join(rows))
    print(f"\n{arguments.studies:,} studies a case; {failures} of {len(cases)} cases fail.")
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
