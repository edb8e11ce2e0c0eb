"""Writes the table of docs/results/estimate.md: estimated steps beside published ones.

    python scripts/estimate_table.py             writes the table of the page
    python scripts/estimate_table.py --check     fails if the table is not what would be written

The records, docs/results/estimate.jsonl, have the settings, flags and sources of every run.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from page_table import write_or_check

RESULTS = Path(__file__).parent.parent / "docs" / "results"
PAGE, RECORDS = RESULTS / "estimate.md", RESULTS / "estimate.jsonl"
BEGIN, END = "<!-- runs: begin -->", "<!-- runs: end -->"
HEADER = (
    "run",
    "chips",
    "measured s",
    "before",
    "estimated s",
    "estimated / measured",
    "left out",
    "kernels",
    "products",
    "rows",
    "other",
    "waiting",
)


def table(records: list[dict[str, Any]]) -> str:
    """Returns the table in Markdown, a row for each record."""
    lines = ["| " + " | ".join(HEADER) + " |", "|---|---|" + "---:|" * (len(HEADER) - 2)]
    return "\n".join(lines + ["| " + " | ".join(_cells(each)) + " |" for each in records])


def _cells(record: dict[str, Any]) -> list[str]:
    measured, parts = record["measured_seconds"], record["parts"]
    middle = sum(measured) / len(measured)

    def ratios(low: float, high: float) -> str:
        return f"{low / middle:.2f} .. {high / middle:.2f}"

    left_out, before = record["leave_one_out"], record["before"]
    waiting = parts["exposed"] + parts["copies"]
    return [
        record["title"],
        f"{record['chip']}:{record['topology']}",
        " .. ".join(dict.fromkeys(f"{each:.4g}" for each in measured)),
        ratios(*before) if before else "",
        f"{record['seconds']:.4g} .. {record['seconds_high']:.4g}",
        ratios(record["seconds"], record["seconds_high"]),
        ratios(left_out["seconds"], left_out["seconds_high"]) if left_out else "not fitted on",
        *(f"{parts[part]:.3g}" for part in ("kernels", "products", "rows", "other")),
        f"{waiting:.3g}",
    ]


def main() -> int:
    """Writes the table, or checks it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true")
    records = [json.loads(line) for line in RECORDS.read_text().splitlines()]
    return write_or_check(PAGE, (BEGIN, END), table(records), parser.parse_args().check)


if __name__ == "__main__":
    sys.exit(main())
