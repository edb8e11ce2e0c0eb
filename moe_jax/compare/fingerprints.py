"""Fingerprints: digests of the settings that decide what a run computes.

| settings that do not decide it                         | affect                            |
|--------------------------------------------------------|-----------------------------------|
| `Checkpoints`, `Writers`, `Watchdog`, `Sampling`,      | saving, logging, texts            |
| `Train.log_every`, `.profile_*`, `.check_memory`       |                                   |
| `Data.cache_dir`, `.rows_dir`, `.tfds_data_dir`,       | where the data are read from      |
| `.allow_changed_files`                                 |                                   |
| sizes of the `Mesh`                                    | how many devices compute it       |
"""

import hashlib
import re
from collections.abc import Mapping
from typing import Any

from moe_jax import strict_json
from moe_jax.sharding.processes import config_bindings

_DECIDES_NOTHING = re.compile(
    r"(Checkpoints|Writers|Watchdog|Sampling)\..*"
    r"|Experiment\.(checkpoints|writers|watchdog|sampling|mesh)"
    r"|Train\.(log_every|profile_.*|check_memory)"
    r"|Data\.(cache_dir|rows_dir|tfds_data_dir|allow_changed_files)"
    r"|Mesh\.(slice|data|fsdp|expert|tensor)"
)
# Items of this setting with their default value are not listed in settings.
LOSS_WEIGHTS = "Loss.weights["
# A quoted text, which has no macros, or a macro.
_MACRO = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|%(?P<name>[A-Za-z_]\w*)")
# Limits for configurations whose macros name macros.
_MOST_NESTED, _LONGEST = 20, 100_000


def resolved_settings(config: str) -> dict[str, str]:
    """Returns the settings of an operative configuration, with macros replaced by their values.

    Args:
        config: operative gin text, as in `config.gin`.

    Returns:
        values as gin writes them, by name such as `Train.steps`.
    """
    bindings = config_bindings(config)
    macros = {name: value for name, value in bindings.items() if "." not in name}

    def value_of(match: re.Match[str]) -> str:
        return macros.get(match["name"] or "", match[0])

    def resolved(value: str) -> str:
        for _ in range(_MOST_NESTED):
            before, value = value, _MACRO.sub(value_of, value)
            if value == before or len(value) > _LONGEST:
                break
        return value

    return {name: resolved(value) for name, value in bindings.items() if "." in name}


def decides(name: str) -> bool:
    """Returns False for a setting that does not decide what is computed (see the table above)."""
    return _DECIDES_NOTHING.fullmatch(name) is None


def data_identity(settings: Mapping[str, str], data: Mapping[str, Any]) -> dict[str, str]:
    """Returns what identifies the data and the vocabulary of a run, by setting.

    Where the contents of files are known, their digests take the place of their paths: the same
    files may lie elsewhere.

    Args:
        settings: values as gin writes them, by name.
        data: `RunRecord.data`: `digests` by task, and `vocabulary_digest`.

    Returns:
        the settings `Data.task` and `Data.vocabulary` that are set, or whose digests are known.
    """
    names = ("Data.task", "Data.vocabulary")
    found = {name: settings[name] for name in names if name in settings}
    digests = data.get("digests")
    if isinstance(digests, Mapping) and digests:
        task = found.get("Data.task", "")
        # Of a mixture the shares stay.
        for name, digest in sorted(digests.items(), key=lambda item: -len(str(item[0]))):
            task = task.replace(str(name), f"files {digest}")
        if task == found.get("Data.task", ""):
            task = " ".join([task, *(f"files {digest}" for digest in digests.values())])
        found["Data.task"] = task
    if isinstance(vocabulary := data.get("vocabulary_digest"), str):
        found["Data.vocabulary"] = f"file {vocabulary}"
    return found


def fingerprint(settings: Mapping[str, str], data: Mapping[str, Any] = {}) -> str:
    """Returns the digest of the settings that decide what is computed.

    Args:
        settings: values as gin writes them, by name, without macros (`resolved_settings`).
        data: facts about the data besides the settings, such as digests of files.

    Returns:
        16 hexadecimal digits; the order of the settings does not matter.
    """
    deciding = sorted((name, value) for name, value in settings.items() if decides(name))
    text = strict_json.dumps([deciding, sorted(data.items())])
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:16]
