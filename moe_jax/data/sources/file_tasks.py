"""The names of tasks that read a user's files, such as `text:books` or `jsonl:FILES#FIELD`."""

from moe_jax.data.sources.file_patterns import split_field

# The kinds of files, with the suffixes that are read in a directory.
SUFFIXES = {
    "text": (".txt", ".md", ".text"),
    "jsonl": (".jsonl", ".json", ".ndjson"),
    "tfrecord": (".tfrecord", ".tfrecords"),
}
DEFAULT_FIELD = "text"


def name_parts(task: str) -> tuple[str, str, str | None]:
    """Returns kind, file names and field of a task."""
    kind, _, files = task.partition(":")
    return (kind, files, None) if kind == "text" else (kind, *split_field(files))


def without_paths(task: str) -> str:
    """Returns the name of a task without the paths of its files, which may be moved."""
    if task.partition(":")[0] not in SUFFIXES:
        return task
    kind, _, field = name_parts(task)
    return f"{kind}:FILES" + (f"#{field}" if field not in (None, DEFAULT_FIELD) else "")
