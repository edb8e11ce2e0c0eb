"""Prepare and find run directories; write `config.gin` and `run.json`.

A run directory also contains `checkpoints/`, `metrics.jsonl`, `time.jsonl`, `tensorboard/` and,
while a process trains in it, the lock file `owner.json` (see `directory_lock.py`).
"""

import contextlib
import datetime
import difflib
import importlib.metadata
import json
import os
import platform
import subprocess
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
from etils import epath

from moe_jax import __version__, strict_json
from moe_jax.errors import UserError
from moe_jax.run_files import CHECKPOINTS, CONFIG_FILE, RUN_FILE
from moe_jax.sharding.processes import config_bindings, gather, is_main, propagate_errors
from moe_jax.training.run_directory.atomic_file import is_remote, write_atomically
from moe_jax.training.run_directory.symlinks import refuse_external_symlinks

CURRICULUM = "curriculum"
_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "seqio", "tensorflow", "numpy")


def prepare(output_dir: str) -> epath.Path:
    """Creates the run directory if it does not exist and checks that it is writable.

    The main process creates it; the others check that they see the same directory.

    Raises:
        UserError: if it is not writable, training would overwrite files that do not belong to a
            run, or the processes do not share it.
    """
    directory = epath.Path(output_dir).expanduser()
    if "://" not in output_dir:
        directory = directory.absolute()
    probe = directory / f".probe-{gather(uuid.uuid4().hex)[0]}"
    with propagate_errors():
        if is_main():
            _check_location(directory)
            _write_probe(probe)
    try:
        with propagate_errors():
            if not probe.exists():
                raise UserError(
                    f"the output directory {directory} is not the one that process 0 writes to; "
                    "give a directory that all hosts share"
                )
    finally:
        if is_main():
            probe.unlink()
    return directory


def _check_location(directory: epath.Path) -> None:
    """Refuses a directory that was most likely not intended; unrelated files in it are allowed."""
    try:
        if directory.exists() and not directory.is_dir():
            raise UserError(f"--output_dir={directory} is a file: give a directory")
        if not is_remote(directory) and os.path.islink(directory) and not directory.exists():
            raise UserError(
                f"--output_dir={directory} is a link to a place that is not there: make the "
                "directory that it names, or give another"
            )
        foreign = (directory / CONFIG_FILE).exists() and not (
            (directory / RUN_FILE).exists() or (directory / CHECKPOINTS).exists()
        )
    except OSError as error:
        raise UserError(
            f"cannot look at the output directory {directory}: {error.strerror or error}"
        ) from None
    if foreign:
        raise UserError(
            f"{directory} has a {CONFIG_FILE} that is not a run's (there is no {RUN_FILE} beside "
            "it), which training would write over: give another --output_dir"
        )
    if not is_remote(directory) and os.path.realpath(directory) in _homes():
        raise UserError(
            f"--output_dir={directory} would spread a run's files over that directory: give one "
            f"of its own, such as {directory / 'run'}"
        )


def _homes() -> set[str]:
    homes = {"/"}
    with contextlib.suppress(RuntimeError):  # Without a home.
        homes.add(os.path.realpath(Path.home()))
    return homes


def _write_probe(probe: epath.Path) -> None:
    try:
        probe.parent.mkdir(parents=True, exist_ok=True)
        refuse_external_symlinks(probe.parent)
        probe.write_text("")
    except OSError as error:
        raise UserError(
            f"cannot write to the output directory {probe.parent}: {error.strerror or error}"
        ) from None


def find_run(checkpoint: str) -> epath.Path:
    """Returns the run directory of a `--checkpoint`, which names it or its `checkpoints/`.

    Raises:
        UserError: if it is not a run directory, or has no checkpoint yet.
    """
    directory = epath.Path(checkpoint).expanduser()
    if "://" not in checkpoint:
        directory = directory.absolute()
    if directory.name == CHECKPOINTS:
        directory = directory.parent
    if not directory.exists():
        raise UserError(f"there is no run directory {directory}")
    if not (directory / CONFIG_FILE).exists() or not (directory / CHECKPOINTS).exists():
        raise UserError(
            f"{directory} is not a run directory: it has no {CONFIG_FILE} and {CHECKPOINTS}/; "
            "give the --output_dir of `moe-jax train`"
        )
    return directory


def write_config(directory: epath.Path, config: str) -> None:
    """Writes `config.gin`."""
    write_atomically(directory / CONFIG_FILE, config)


def config_changes(directory: epath.Path, config: str) -> list[str]:
    """Returns the lines in which a configuration differs from the run's; none for a new run."""
    path = directory / CONFIG_FILE
    if not path.exists():
        return []
    before, now = (
        [f"{name} = {value}" for name, value in config_bindings(text).items()]
        for text in (path.read_text(), config)
    )
    changes = difflib.unified_diff(before, now, n=0, lineterm="")
    return [line for line in changes if line[:1] in "+-" and line[:3] not in ("+++", "---")]


def write_record(directory: epath.Path, mesh: Mapping[str, int], **facts: Any) -> None:
    """Writes `run.json`: versions, commit, devices, sizes of the mesh, and additional facts."""
    path = directory / RUN_FILE
    started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    record = json.loads(path.read_text()) if path.exists() else {"started": []}
    record |= {
        "started": [*record["started"], started],
        "moe_jax": __version__,
        "commit": _commit(),
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in _PACKAGES},
        "devices": {
            "kind": jax.devices()[0].device_kind,
            "count": jax.device_count(),
            "processes": jax.process_count(),
        },
        "mesh": dict(mesh),
        **facts,
    }
    write_atomically(path, strict_json.dumps(record, indent=2) + "\n")


def update_record(directory: epath.Path, **facts: Any) -> None:
    """Changes facts in `run.json`; nothing if there is none."""
    if record := read_record(directory):
        text = strict_json.dumps(record | facts, indent=2)
        write_atomically(directory / RUN_FILE, text + "\n")


def read_record(directory: epath.Path) -> dict[str, Any]:
    """Returns the contents of `run.json`; empty if it is missing or incomplete."""
    path = directory / RUN_FILE
    try:
        record: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    except json.JSONDecodeError:
        return {}
    return record


def _commit() -> str | None:
    """Returns the git commit of the running source; None for an installed package."""
    source = epath.resource_path("moe_jax").parent
    if not (source / ".git").exists():
        return None
    command = ["git", "-C", str(source), "describe", "--always", "--dirty", "--abbrev=40"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    return result.stdout.strip() or None
