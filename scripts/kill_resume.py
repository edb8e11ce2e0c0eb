#!/usr/bin/env python3
r"""Kills one run again and again and compares its end with a run that nothing happened to.

    scripts/kill_resume.py --output_dir=runs/kills --kills=50 -- --gin_file=runs/quickstart.gin \
      --gin.Checkpoints.every=5

What follows `--` are arguments of `moe-jax train`. The run is in OUTPUT_DIR/run, the one without
kills in OUTPUT_DIR/whole, what was found in OUTPUT_DIR/kills.json. Kills (SIGKILL) are spread over
the run's steps; of ten, seven come at a random moment after a random step, two during a save, and
one while the program starts. After every kill all checkpoints that are left are restored; at the
end every array of the last checkpoints of both runs is compared bit by bit.

It may be stopped itself at any time: the same command goes on with the next kill. Its exit code is
0 if everything could be restored and the ends are equal, 1 otherwise.
"""

import argparse
import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from killed_run import Moment, Run


def kill_once(run: Run, moment: Moment, start_seconds: float) -> dict[str, Any] | None:
    """Starts the run and kills it; returns what was left, None if the run ended before."""
    before = run.reached()
    process = run.start()
    try:
        if not moment.wait(run, process, start_seconds):
            return None
    finally:
        process.kill()
        process.wait()
    seconds = time.monotonic() - run.started
    trained = moment.first_step_seconds is not None
    unreadable = {}
    for step in run.saved():
        try:
            run.restored(step)
        except Exception as error:
            unreadable[str(step)] = " ".join(str(error).split())[:200]
    return {
        "kind": moment.kind,
        "seconds": seconds,
        "first_step_seconds": moment.first_step_seconds,
        # A start that was killed before its first step has redone nothing.
        "redone": max(before - run.went_on_from(), 0) if trained else 0,
        "reached": run.reached(),
        "saved": run.saved(),
        "saving": run.saving(),
        "unreadable": unreadable,
    }


def finish(run: Run) -> dict[str, Any]:
    """Runs to the end."""
    before = run.reached()
    code = run.start().wait()
    if code:
        sys.exit(f"kill_resume: {run.directory} ended with {code}; see {run.directory}.err")
    seconds = time.monotonic() - run.started
    redone = max(before - run.went_on_from(), 0)
    return {"seconds": seconds, "steps": run.reached(), "redone": redone}


def differences(first: Run, second: Run) -> tuple[int, list[str]]:
    """Returns how many arrays the last checkpoints have, and the names of those that differ."""
    a, b = (run.restored(run.saved()[-1]) for run in (first, second))
    return len(a), [
        name
        for name in sorted(a.keys() | b.keys())
        if name not in a
        or name not in b
        or (a[name].dtype, a[name].shape) != (b[name].dtype, b[name].shape)
        or a[name].tobytes() != b[name].tobytes()
    ]


def summary(state: dict[str, Any]) -> dict[str, Any]:
    """Returns the figures of all kills."""
    kills, run, whole = state["kills"], state["run"], state["whole"]
    starts = [kill["first_step_seconds"] for kill in kills if kill["first_step_seconds"]]
    seconds = sum(kill["seconds"] for kill in kills) + run["seconds"]
    return {
        "kills": len(kills),
        "kills_during_a_save": sum(bool(kill["saving"]) for kill in kills),
        "kills_before_the_first_step": sum(kill["kind"] == "start" for kill in kills),
        "checkpoints_restored": sum(len(kill["saved"]) for kill in kills),
        "checkpoints_unreadable": sum(len(kill["unreadable"]) for kill in kills),
        "steps": whole["steps"],
        "steps_redone": sum(kill["redone"] for kill in kills) + run["redone"],
        "most_steps_redone": max([kill["redone"] for kill in kills] + [run["redone"]]),
        "seconds": seconds,
        "seconds_without_kills": whole["seconds"],
        "seconds_lost_per_kill": (seconds - whole["seconds"]) / max(len(kills), 1),
        "seconds_to_the_first_step": statistics.median(starts) if starts else None,
        "arrays": state["arrays"],
        "arrays_different": state["different"],
    }


def save(path: Path, state: dict[str, Any]) -> None:
    """Writes what is known so far, whole or not at all."""
    beside = path.with_suffix(".tmp")
    beside.write_text(json.dumps(state, indent=1) + "\n")
    os.replace(beside, path)


def main() -> int:
    """Runs it all and returns the exit code."""
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("arguments", nargs="*")
    args = parser.parse_args()
    args.output_dir.mkdir(parents=True, exist_ok=True)
    path = args.output_dir / "kills.json"
    asked = {"arguments": args.arguments, "kills": args.kills, "seed": args.seed}
    state: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"asked": asked}
    if state["asked"] != asked:
        sys.exit(f"kill_resume: {path} is of another command: {state['asked']}")
    run, whole = (Run(args.output_dir / name, args.arguments) for name in ("run", "whole"))
    if "whole" not in state:
        state |= {"whole": finish(whole), "kills": []}
        save(path, state)
    start_seconds, steps = 10.0, state["whole"]["steps"]
    while len(state["kills"]) < args.kills and "run" not in state:
        moment = Moment(args.seed, len(state["kills"]), args.kills, steps)
        kill = kill_once(run, moment, start_seconds)
        if kill is None:
            print(f"the run ended before kill {len(state['kills']) + 1}: it is too short")
            break
        state["kills"].append(kill)
        start_seconds = kill["first_step_seconds"] or start_seconds
        save(path, state)
        shown = {name: kill[name] for name in ("kind", "reached", "saved", "saving", "redone")}
        print(f"kill {len(state['kills'])} of {args.kills}: {shown}", flush=True)
    if "run" not in state:
        state["run"] = finish(run)
    state["arrays"], state["different"] = differences(run, whole)
    state["summary"] = summary(state)
    save(path, state)
    print(json.dumps(state["summary"], indent=1))
    return int(bool(state["summary"]["checkpoints_unreadable"] or state["different"]))


if __name__ == "__main__":
    sys.exit(main())
