#!/usr/bin/env python3
"""Does every fault of tests/faults/*cases.py to a run and writes what happened to a page.

    python scripts/faults.py          all faults, for docs/results/faults.md
    python scripts/faults.py --only=killed,full_disk    prints the rows of some
    python scripts/faults.py --kills=runs/kills/kills.json --no-faults

The last takes in what scripts/kill_resume.py found; it goes with the first as well. Only what is
between the page's markers is replaced. All takes about ten minutes on two cores.
"""

import argparse
import json
import os
import platform
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests" / "faults"), str(ROOT / "tests" / "helpers")]

from cases import CASES, Case  # noqa: E402
from disk_cases import DISK_CASES  # noqa: E402
from harness import Home  # noqa: E402

FAULTS = [*CASES, *DISK_CASES]
PAGE = ROOT / "docs" / "results" / "faults.md"
HEADER = (
    "| what happened | exit code | what was printed | steps lost | how the same command went on |\n"
    "|---|---:|---|---:|---|"
)


def row(case: Case, title: str, directory: Path) -> str:
    """Returns a row of the table."""
    ended, resumed = case.ended, case.resumed
    same = "the same losses to the last digit" if case.same else "other losses"
    if case.unrecorded:
        same += f", no record of {', '.join(map(str, case.unrecorded))}"
    if resumed.code:
        went = f"not: exit code {resumed.code}, `{short(resumed.line, directory)}`"
    elif ended is resumed:
        went = f"in the same run; {same}"
    else:
        start = resumed.went_on_from
        went = f"from {'the beginning' if start is None else f'step {start}'}; {same}"
    code = {-9: "killed"}.get(ended.code, str(ended.code))
    lost = max(case.reached - case.saved, 0)
    return f"| {title} | {code} | {short(ended.line, directory)} | {lost} | {went} |"


def short(line: str, directory: Path) -> str:
    """Returns a printed line for a cell, without the places of this machine."""
    line = line.replace(str(directory), "...").replace("|", "\\|")
    line = line.replace(platform.node(), "HOST")
    line = line if len(line) <= 300 else f"{line[:297]}..."
    return "nothing" if line == "-" else f"`{line}`"


def run_all(only: list[str]) -> str:
    """Does the faults and returns their table."""
    rows = [HEADER]
    with tempfile.TemporaryDirectory() as directory:
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", f"{directory}/compiled")
        home = Home(Path(directory))
        for fault in FAULTS:
            if only and fault.__name__ not in only:
                continue
            title = (fault.__doc__ or fault.__name__).strip().rstrip(".")
            try:
                rows.append(row(fault(home), title, home.directory))
            except AssertionError as error:
                rows.append(f"| {title} | | {short(str(error), home.directory)} | | |")
            print(rows[-1], flush=True)
    return "\n".join(rows)


def kill_table(state: dict[str, Any]) -> str:
    """Returns the figures of scripts/kill_resume.py as a table."""
    figures = state["summary"]
    named = {
        "kills": f"{figures['kills']}",
        "of them during a save": f"{figures['kills_during_a_save']}",
        "of them before the first step": f"{figures['kills_before_the_first_step']}",
        "checkpoints restored after kills": f"{figures['checkpoints_restored']:,}",
        "**of them unreadable**": f"**{figures['checkpoints_unreadable']}**",
        "steps of the run": f"{figures['steps']:,}",
        "steps done twice": f"{figures['steps_redone']:,}",
        "most steps done twice after a kill": f"{figures['most_steps_redone']:,}",
        "seconds lost per kill": f"{figures['seconds_lost_per_kill']:.1f}",
        "arrays compared with the run without kills": f"{figures['arrays']}",
        "**of them different in a bit**": f"**{len(figures['arrays_different'])}**",
    }
    lines = ["| | |", "|---|---:|"]
    return "\n".join(lines + [f"| {name} | {value} |" for name, value in named.items()])


def replaced(page: str, name: str, table: str) -> str:
    """Returns the page with another table between the markers of a name."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    pattern = re.compile(f"{re.escape(begin)}.*{re.escape(end)}", re.DOTALL)
    if not pattern.search(page):
        sys.exit(f"faults: {PAGE} has no {begin}")
    return pattern.sub(lambda _: f"{begin}\n\n{table}\n\n{end}", page)


def main() -> None:
    """Writes the page, or prints rows."""
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("--only", default="")
    parser.add_argument("--kills", type=Path)
    parser.add_argument("--no-faults", action="store_true")
    args = parser.parse_args()
    only = [name for name in args.only.split(",") if name]
    unknown = set(only) - {fault.__name__ for fault in FAULTS}
    if unknown:
        known = ", ".join(fault.__name__ for fault in FAULTS)
        sys.exit(f"faults: unknown: {', '.join(sorted(unknown))}; known: {known}")
    page = PAGE.read_text()
    if args.kills:
        page = replaced(page, "kills", kill_table(json.loads(args.kills.read_text())))
    if not args.no_faults:
        table = run_all(only)
        page = page if only else replaced(page, "faults", table)
    PAGE.write_text(page)


if __name__ == "__main__":
    main()
