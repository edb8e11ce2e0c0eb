"""The English corpus and the vocabulary in the package (moe_jax/data/embedded/SOURCES.md)."""

import gzip
import importlib.resources
import json
from importlib.resources.abc import Traversable


def embedded_file(name: str) -> Traversable:
    """Returns a file of the embedded corpus."""
    return importlib.resources.files("moe_jax") / "data" / "embedded" / name


def embedded_documents(split: str) -> list[str]:
    """Returns the documents of a split, `train` or `validation`."""
    with embedded_file(f"{split}.jsonl.gz").open("rb") as file:
        text = gzip.decompress(file.read()).decode("utf-8")
    # Not splitlines(), which also splits at characters such as U+2028.
    return [json.loads(line)["text"] for line in text.split("\n") if line]
