"""Writes examples through a TFDS builder: the official one where TFDS has one, or our own."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
from tensorflow_datasets.core import registered

from moe_jax.data.prepare.dataset_spec import DatasetSpec
from moe_jax.data.prepare.row_reader import KeyedExample

Rows = Mapping[str, Iterator[KeyedExample]]


class _NoDownloads:
    """Stands where TFDS's download manager does; any use of it is a mistake."""

    download_dir = None
    register_checksums = False
    downloaded_size = 0

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"preparing from files tried to download ({name})")


def make_builder(data_set: DatasetSpec, directory: Path, rows: Rows) -> Any:
    """Returns a builder with the official name, version and features that writes `rows`.

    Args:
        data_set: what to write.
        directory: the data directory that it is written into.
        rows: the examples of every split.
    """
    is_official = data_set.kind == "official"
    base = tfds.builder_cls(data_set.builder) if is_official else _own(data_set)

    def split_generators(self: Any, manager: Any) -> Rows:
        del self, manager
        return rows

    def make_download_manager(self: Any, **settings: Any) -> _NoDownloads:
        del self, settings
        return _NoDownloads()

    members = {
        "name": data_set.builder,
        # TFDS finds texts such as the description by the module.
        "__module__": base.__module__,
        "__doc__": base.__doc__,
        "pkg_dir_path": base._get_pkg_dir_path(),
        "_split_generators": split_generators,
        "_make_download_manager": make_download_manager,
        # What TFDS would print to standard output.
        "_log_download_bytes": lambda self: None,
        "_log_download_done": lambda self: None,
    }
    with registered.skip_registration():
        builder = type(base.__name__, (base,), members)
    config, version = data_set.config or None, data_set.version
    return builder(config=config, version=version, data_dir=str(directory))


def write(builder: Any) -> None:
    """Writes a builder's examples; downloads nothing."""
    with _no_progress_bars():
        builder.download_and_prepare(
            download_config=tfds.download.DownloadConfig(
                try_download_gcs=False, compute_stats=tfds.download.ComputeStatsMode.SKIP
            )
        )


def label_names(builder: Any) -> list[str] | None:
    """Returns the names of the labels, in order; None without such a feature."""
    label = dict(builder.info.features.items()).get("label")
    return list(label.names) if isinstance(label, tfds.features.ClassLabel) else None


@contextlib.contextmanager
def _no_progress_bars() -> Iterator[None]:
    tfds.disable_progress_bar()
    try:
        yield
    finally:
        tfds.enable_progress_bar()


_FEATURES: dict[str, Callable[[], dict[str, Any]]] = {
    "text": lambda: {"text": tfds.features.Text()},
    # TFDS's features of C4; its builder is of a later version than the one that is in use.
    "c4": lambda: {
        name: tfds.features.Text()
        for name in ("text", "url", "content-type", "content-length", "timestamp")
    },
    "dialogues": lambda: {
        "speakers": tfds.features.Sequence(tfds.features.Text()),
        "dialogue": tfds.features.Sequence(tfds.features.Text()),
        "narrative": tfds.features.Text(),
    },
}


def _own(data_set: DatasetSpec) -> Any:
    """Returns a builder class for a data set that TFDS lacks."""
    version = tfds.core.Version(data_set.version)

    def info(self: Any) -> Any:
        return tfds.core.DatasetInfo(
            builder=self,
            description=f"{data_set.title}, prepared by moe-jax from files.",
            features=tfds.features.FeaturesDict(_FEATURES[data_set.kind]()),
        )

    def generate_examples(self: Any) -> Any:
        raise AssertionError("not used: the splits bring their examples along")

    members: dict[str, Any] = {
        "name": data_set.builder,
        "__module__": __name__,
        "__doc__": data_set.title,
        "VERSION": version,
        "_info": info,
        "_split_generators": lambda self, manager: {},
        "_generate_examples": generate_examples,
    }
    if data_set.config:
        config = tfds.core.BuilderConfig(name=data_set.config, version=version)
        members["BUILDER_CONFIGS"] = [config]
    with registered.skip_registration():
        return type("Prepared", (tfds.core.GeneratorBasedBuilder,), members)
