"""What a run has written."""

import json
from pathlib import Path


def records(directory: Path, kind: str) -> list[dict]:
    """Returns the records of a run; a last line that was cut off is none."""
    path = directory / "metrics.jsonl"
    found = []
    for line in path.read_text(errors="replace").splitlines() if path.exists() else []:
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if record["kind"] == kind:
            found.append(record)
    return found


def losses(directory: Path) -> dict[int, float]:
    """Returns the training loss by step."""
    return {record["step"]: record["loss"] for record in records(directory, "train")}


def evaluation(directory: Path) -> dict[str, float]:
    """Returns the last evaluation, empty if there is none."""
    return next(iter(records(directory, "eval")[-1:]), {})


def saved(directory: Path) -> list[int]:
    """Returns the complete checkpoints."""
    folder = directory / "checkpoints"
    names = [path.name for path in folder.iterdir()] if folder.exists() else []
    return sorted(int(name) for name in names if name.isdigit())


def saving(directory: Path) -> list[int]:
    """Returns the checkpoints that are being written."""
    folder = directory / "checkpoints"
    names = [path.name for path in folder.glob("*.orbax-checkpoint-tmp*")]
    return sorted(int(name.partition(".")[0]) for name in names)
