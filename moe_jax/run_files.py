"""The names of the files in a run directory."""

CONFIG_FILE = "config.gin"
RUN_FILE = "run.json"
CHECKPOINTS = "checkpoints"
# While a process trains there.
OWNER_FILE = "owner.json"


def is_run(names: set[str]) -> bool:
    """Returns whether a directory with entries of these names is a run directory."""
    return CHECKPOINTS in names and bool(names & {CONFIG_FILE, OWNER_FILE})
