"""Sources of data sets that TensorFlow Datasets has prepared, without downloads."""

import json
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

import seqio
from etils import epath

from moe_jax.data.dataset_info import DATASETS
from moe_jax.errors import UserError

_BASE = re.compile(r"[A-Za-z_]\w*(/[\w.-]+)?")
_VERSION = re.compile(r"\d+\.\d+\.\d+")
# Keys of class names in features.json, of current and older versions of TensorFlow Datasets.
_CLASS_KEYS = ("pythonClassName", "python_class_name", "type")


def data_home(tfds_data_dir: str | None) -> epath.Path:
    """Returns the directory of prepared data sets, local or gs://."""
    home = tfds_data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    return epath.Path(home).expanduser()


def tfds_source(
    name: str, tfds_data_dir: str | None, splits: Mapping[str, str] | None = None
) -> seqio.DataSource:
    """Returns a prepared data set as a source of seqio tasks.

    Args:
        name: data set with configuration and version, such as `glue/sst2:2.0.0`. If this version
            does not exist, the newest with the same major version is read.
        tfds_data_dir: its directory; None for `TFDS_DATA_DIR` or `~/tensorflow_datasets`.
        splits: from the task's names of the splits to those of the data set; missing splits are
            left out. None for all splits under their own names.

    Raises:
        UserError: if it does not exist, or has none of the splits.
    """
    home = data_home(tfds_data_dir)
    base, colon, version = name.partition(":")
    if not _BASE.fullmatch(base) or (colon and not _VERSION.fullmatch(version)):
        # TensorFlow Datasets downloads code for names of the form NAMESPACE:NAME.
        raise UserError(
            f"{name!r} is no name of a prepared data set; expected NAME/CONFIG:VERSION, such as "
            "glue/sst2:2.0.0"
        )
    found = _version(home / base, version)
    if found is None:
        prepare = f"moe-jax data prepare {base} --source=FILES --data_dir={home}"
        raise UserError(
            f"there is no prepared {name} in {home}; set Data.tfds_data_dir to the directory that "
            "TensorFlow Datasets prepared it in (local or gs://)"
            + (f", or make it from the original files with `{prepare}`" if base in DATASETS else "")
        )
    has = _splits(home / base / found)
    wanted = dict(splits) if splits is not None else {split: split for split in has}
    there = {split: own for split, own in wanted.items() if own.partition("[")[0] in has}
    if not there:
        raise UserError(
            f"{home / base / found} has the splits {', '.join(sorted(has))}, and none of "
            f"{', '.join(sorted(wanted.values()))}"
        )
    _check_features(home / base / found)
    return seqio.TfdsDataSource(
        f"{base}:{found}", tfds_data_dir=str(home), splits=there, read_only=True
    )


def _version(directory: epath.Path, version: str) -> str | None:
    """Returns the given version, or the newest compatible one."""
    if version and (directory / version / "dataset_info.json").exists():
        return version
    if not directory.exists():
        return None
    found = [path.name for path in directory.iterdir() if _VERSION.fullmatch(path.name)]
    same = [v for v in found if not version or v.split(".")[0] == version.split(".")[0]]
    return max(same, key=lambda v: tuple(map(int, v.split("."))), default=None)


def _check_features(directory: epath.Path) -> None:
    """Refuses features of classes outside TensorFlow Datasets, which it would import.

    Raises:
        UserError: for such a class.
    """
    path = directory / "features.json"
    if not path.exists():
        return
    for name in _class_names(json.loads(path.read_text())):
        if not name.startswith("tensorflow_datasets."):
            raise UserError(
                f"{path} asks for the class {name!r}, and reading data runs no code but that of "
                "TensorFlow Datasets"
            )


def _class_names(value: Any) -> Iterator[str]:
    """Yields the names of the classes in features, at any depth."""
    if isinstance(value, dict):
        for key, inner in value.items():
            # The name of a feature may be such a key; its value is no text.
            if key in _CLASS_KEYS and isinstance(inner, str):
                yield inner
            yield from _class_names(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _class_names(inner)


def _splits(directory: epath.Path) -> set[str]:
    """Reads the names of a prepared data set's splits, without TensorFlow Datasets' checks."""
    info = json.loads((directory / "dataset_info.json").read_text())
    return {split["name"] for split in info.get("splits", [])}
