"""What `rows.json` says about cached rows."""

import dataclasses
import hashlib
from collections.abc import Mapping
from typing import Any

from moe_jax import strict_json
from moe_jax.data.config import DataConfig
from moe_jax.data.pipeline.iterator_checkpoint import task_names

ROWS_FILE = "rows.json"
VERSION = 1
# Fields of a batch, and whether rows always have them.
COLUMNS = {
    "inputs": True,
    "targets": True,
    "weights": True,
    "positions": False,
    "segments": False,
    "prefix": False,
}
DTYPES = ("uint8", "uint16", "uint32")


def row_settings(config: DataConfig) -> dict[str, Any]:
    """Returns the settings that decide the rows, but for the seed and the vocabulary."""
    return {
        "Data.task": task_names(config),
        "Data.sequence_length": config.sequence_length,
        "Data.shards": config.shards,
        "Data.shuffle": config.shuffle,
        "Data.objective": config.objective,
        "Data.pack": config.pack,
        "Data.targets_length": config.targets_length,
        "Data.eval_split": config.eval_split,
        # The order of a cache's examples is not that of the texts.
        "Data.cache_dir is set": config.cache_dir is not None,
    }


@dataclasses.dataclass(frozen=True)
class RowFacts:
    """The contents of `rows.json`.

    Attributes:
        settings: see `row_settings`.
        files: digest of the user's files; None for other tasks.
        pieces_digest: digest of the vocabulary with its sentinels.
        vocabulary_digest: SHA-256 of the file of `Data.vocabulary`.
        vocabulary_path: `Data.vocabulary` when the rows were made.
        vocab_size: V, tokens of the vocabulary, sentinels included.
        columns: types of the columns by name.
        seeds: seeds whose order is there.
        rows_per_shard: N, rows in the order of a shard.
        train_rows: R, distinct training rows.
        eval_rows: E, rows of the evaluation split.
        eval_is_whole: whether these are all rows of the split.
        is_question: whether examples have inputs, which are questions.
        notes: notes for the user about the files.
        manifest: facts about the user's files by task, as in `run.json`.
        version: version of the format.
    """

    settings: Mapping[str, Any]
    files: str | None
    pieces_digest: str
    vocabulary_digest: str
    vocabulary_path: str
    vocab_size: int
    columns: Mapping[str, str]
    seeds: tuple[int, ...]
    rows_per_shard: int
    train_rows: int
    eval_rows: int
    eval_is_whole: bool
    is_question: bool
    notes: tuple[str, ...]
    manifest: Mapping[str, Any]
    version: int = VERSION

    def fingerprint(self) -> str:
        """Returns a digest of the data, the vocabulary and the packing of the rows."""
        key = strict_json.dumps([self.version, dict(self.settings), self.files, self.pieces_digest])
        return hashlib.sha256(key.encode()).hexdigest()[:16]

    def dumps(self) -> str:
        """Returns the text of `rows.json`."""
        entries = {**dataclasses.asdict(self), "fingerprint": self.fingerprint()}
        return strict_json.dumps(entries, indent=1)


# The types of the entries; `None` where null is right, too.
_TYPES: Mapping[str, tuple[type, ...]] = {
    "settings": (dict,),
    "files": (str, type(None)),
    "pieces_digest": (str,),
    "vocabulary_digest": (str,),
    "vocabulary_path": (str,),
    "vocab_size": (int,),
    "columns": (dict,),
    "seeds": (list,),
    "rows_per_shard": (int,),
    "train_rows": (int,),
    "eval_rows": (int,),
    "eval_is_whole": (bool,),
    "is_question": (bool,),
    "notes": (list,),
    "manifest": (dict,),
}


def parse_facts(entries: Any) -> RowFacts:
    """Converts the contents of `rows.json`.

    Raises:
        ValueError: for anything that this version does not write.
    """
    if not isinstance(entries, dict) or entries.get("version") != VERSION:
        found = entries.get("version") if isinstance(entries, dict) else None
        raise ValueError(f"its version is {found!r}, this program reads {VERSION}")
    wrong = [name for name, kinds in _TYPES.items() if not _is_one(entries.get(name), kinds)]
    if wrong:
        raise ValueError(f"{wrong[0]!r} is {str(entries.get(wrong[0]))[:40]!r}")
    facts = RowFacts(**{name: entries[name] for name in _TYPES})
    _check(facts)
    facts = dataclasses.replace(facts, seeds=tuple(facts.seeds), notes=tuple(facts.notes))
    if entries.get("fingerprint") != facts.fingerprint():
        raise ValueError("its fingerprint is not that of its settings")
    return facts


def _is_one(value: Any, kinds: tuple[type, ...]) -> bool:
    return type(value) in kinds


def _check(facts: RowFacts) -> None:
    """Checks what the types leave open.

    Raises:
        ValueError: for a value that this version does not write.
    """
    expected = row_settings(DataConfig())
    conditions = {
        "settings": facts.settings.keys() == expected.keys()
        and all(type(facts.settings[name]) is type(value) for name, value in expected.items())
        and facts.settings["Data.sequence_length"] > 0,
        "columns": all(name in COLUMNS and d in DTYPES for name, d in facts.columns.items())
        and all(name in facts.columns for name, always in COLUMNS.items() if always),
        "seeds": bool(facts.seeds) and all(type(seed) is int for seed in facts.seeds),
        "notes": all(isinstance(note, str) for note in facts.notes),
        "manifest": all(
            isinstance(entry, dict)
            and isinstance(entry.get("digest"), str)
            and isinstance(entry.get("files"), list)
            for entry in facts.manifest.values()
        ),
    }
    sizes = ("vocab_size", "rows_per_shard", "train_rows", "eval_rows")
    conditions |= {name: getattr(facts, name) > 0 for name in sizes}
    wrong = [name for name, is_right in conditions.items() if not is_right]
    if wrong:
        raise ValueError(f"{wrong[0]!r} is {str(getattr(facts, wrong[0]))[:40]!r}")
