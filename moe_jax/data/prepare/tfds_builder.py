"""Writes examples with a TFDS builder: the official one, or our own if TFDS has none."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
from tensorflow_datasets.core import registered

from moe_jax.data.prepare.dataset_spec import DatasetSpec
from moe_jax.data.prepare.row_reader import KeyedExample

SplitExamples = Mapping[str, Iterator[KeyedExample]]


class _NoDownloads:
    """A replacement of TFDS's download manager that refuses to download."""

    download_dir = None
    register_checksums = False
    downloaded_size = 0

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"preparing from files tried to download ({name})")


def make_builder(spec: DatasetSpec, directory: Path, examples: SplitExamples) -> Any:
    """Returns a builder with the official name, version and features that writes `examples`.

    Args:
        spec: the data set.
        directory: data directory that it is written to.
        examples: the examples of every split.
    """
    is_official = spec.features == "official"
    base = tfds.builder_cls(spec.builder) if is_official else _new_builder_class(spec)

    def split_generators(self: Any, manager: Any) -> SplitExamples:
        del self, manager
        return examples

    def make_download_manager(self: Any, **settings: Any) -> _NoDownloads:
        del self, settings
        return _NoDownloads()

    members = {
        "name": spec.builder,
        # TFDS looks up texts such as the description by the module.
        "__module__": base.__module__,
        "__doc__": base.__doc__,
        "pkg_dir_path": base._get_pkg_dir_path(),
        "_split_generators": split_generators,
        "_make_download_manager": make_download_manager,
        # Prints of TFDS to standard output.
        "_log_download_bytes": lambda self: None,
        "_log_download_done": lambda self: None,
    }
    with registered.skip_registration():
        builder = type(base.__name__, (base,), members)
    config, version = spec.config or None, spec.version
    return builder(config=config, version=version, data_dir=str(directory))


def write_examples(builder: Any) -> None:
    """Writes a builder's examples, without downloads."""
    with _no_progress_bars():
        builder.download_and_prepare(
            download_config=tfds.download.DownloadConfig(
                try_download_gcs=False, compute_stats=tfds.download.ComputeStatsMode.SKIP
            )
        )


def label_names(builder: Any) -> list[str] | None:
    """Returns the names of the labels, in order; None if the label is no class."""
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
    # TFDS's features of C4; its builder is of a later version.
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


def _new_builder_class(spec: DatasetSpec) -> Any:
    """Returns a builder class for a data set that TFDS lacks."""
    version = tfds.core.Version(spec.version)

    def info(self: Any) -> Any:
        return tfds.core.DatasetInfo(
            builder=self,
            description=f"{spec.title}, prepared by moe-jax from files.",
            features=tfds.features.FeaturesDict(_FEATURES[spec.features]()),
        )

    def generate_examples(self: Any) -> Any:
        raise AssertionError("not used: the splits have their examples")

    members: dict[str, Any] = {
        "name": spec.builder,
        "__module__": __name__,
        "__doc__": spec.title,
        "VERSION": version,
        "_info": info,
        "_split_generators": lambda self, manager: {},
        "_generate_examples": generate_examples,
    }
    if spec.config:
        config = tfds.core.BuilderConfig(name=spec.config, version=version)
        members["BUILDER_CONFIGS"] = [config]
    with registered.skip_registration():
        return type("Prepared", (tfds.core.GeneratorBasedBuilder,), members)
