"""The names of the files in a run directory."""

CONFIG_FILE = "config.gin"
RUN_FILE = "run.json"
CHECKPOINTS = "checkpoints"
# The lock file, while a process trains in the directory.
OWNER_FILE = "owner.json"


def is_run(names: set[str]) -> bool:
    """Returns True if a directory with entries of these names is a run directory."""
    return CHECKPOINTS in names and bool(names & {CONFIG_FILE, OWNER_FILE})


def predictions_file(split: str) -> str:
    """Returns the name of the file with the predictions for the examples of a split."""
    return f"predictions_{split}.jsonl"
