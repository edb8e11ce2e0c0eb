"""Tokenises a task before a run, in the format of seqio's caches.

seqio's own tool needs Apache Beam, and suits corpora of terabytes (see docs/guides/data.md); this
one runs on one machine without it. A run reads both through `Data.cache_dir`.
"""

import errno
import itertools
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import seqio
import tensorflow as tf

from moe_jax.data.config import DataConfig
from moe_jax.data.tasks.registry import find_task
from moe_jax.errors import UserError

# Enough files to be distributed over many hosts, and not too many.
_EXAMPLES_PER_FILE = 20_000
_MAX_FILES = 1024


def cache_task(config: DataConfig, output_dir: str, force: bool = False) -> dict[str, Any]:
    """Tokenises every split of a task, or of each task of a mixture, into `output_dir`.

    A task's directory appears only when it is complete.

    Args:
        config: task, vocabulary, objective and directories of the data.
        output_dir: a local directory, for `Data.cache_dir`.
        force: overwrite existing tasks.

    Returns:
        {task: {split: number of examples}}.

    Raises:
        UserError: if a task cannot be cached, or exists already.
    """
    if "://" in output_dir:
        raise UserError(f"--output_dir={output_dir}: cache locally, then copy the directory there")
    root = Path(output_dir).expanduser()
    root.mkdir(parents=True, exist_ok=True)
    written = {}
    for task in seqio.get_subtasks(find_task(config).provider):
        if not task.supports_caching:
            raise UserError(f"task {task.name!r} has no seqio.CacheDatasetPlaceholder for a cache")
        target = root / seqio.utils.get_task_dir_from_name(task.name)
        if target.exists() and not force:
            raise UserError(f"{target} exists already; --force overwrites it")
        with tempfile.TemporaryDirectory(dir=root, prefix=f".{task.name}.") as work:
            new = Path(work) / "task"
            new.mkdir()
            target.parent.mkdir(parents=True, exist_ok=True)
            written[task.name] = {split: _write_split(task, split, new) for split in task.splits}
            (new / "COMPLETED").touch()
            move_complete(new, target, Path(work) / "replaced", force)
    return written


def move_complete(new: Path, target: Path, replaced: Path, force: bool) -> None:
    """Moves a complete directory to its final path, with `force` in place of an existing one.

    Args:
        new: the directory.
        target: its final path.
        replaced: where an existing one is moved.
        force: whether an existing one may be replaced.

    Raises:
        UserError: if another process has written the target meanwhile.
    """
    try:
        if force and target.exists():
            target.rename(replaced)
        new.rename(target)
    except OSError as error:
        if replaced.exists() and not target.exists():
            replaced.rename(target)
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        raise UserError(
            f"{target} was written by another process meanwhile; it is not changed"
        ) from None


def _write_split(task: seqio.Task, split: str, directory: Path) -> int:
    """Writes the examples of a split with their description; returns their number."""
    total = sum(1 for _ in task.source.get_dataset(split, shuffle=False))
    files = min(max(-(-total // _EXAMPLES_PER_FILE), 1), _MAX_FILES)
    prefix = seqio.utils.get_cached_tfrecord_prefix(str(directory), split)
    writers = [tf.io.TFRecordWriter(f"{prefix}-{i:05d}-of-{files:05d}") for i in range(files)]
    tokens: dict[str, int] = {}
    longest: dict[str, int] = {}
    features: dict[str, Any] = {}
    count = 0
    for example, writer in zip(_examples(task, split), itertools.cycle(writers), strict=False):
        features = features or {name: _description(value) for name, value in example.items()}
        writer.write(seqio.utils.dict_to_tfexample(example).SerializeToString())
        count += 1
        # Later preprocessors may add features, such as the inputs of a masked text.
        for name in task.output_features.keys() & example.keys():
            tokens[name] = tokens.get(name, 0) + len(example[name])
            longest[name] = max(longest.get(name, 0), len(example[name]))
    for writer in writers:
        writer.close()
    info = {"num_shards": files, "features": features, "seqio_version": seqio.__version__}
    stats = {"examples": count}
    stats |= {f"{name}_tokens": total for name, total in tokens.items()}
    stats |= {f"{name}_max_tokens": most for name, most in longest.items()}
    Path(seqio.utils.get_cached_info_path(str(directory), split)).write_text(json.dumps(info))
    Path(seqio.utils.get_cached_stats_path(str(directory), split)).write_text(json.dumps(stats))
    return count


def _examples(task: seqio.Task, split: str) -> Iterator[dict[str, Any]]:
    """Yields the examples before the cache placeholder, with features of rank 0 and 1 only."""
    dataset = task.source.get_dataset(split, shuffle=False)
    dataset = task.preprocess_precache(dataset, seed=0)
    flat = {
        name: spec.shape.rank
        for name, spec in dataset.element_spec.items()
        if isinstance(spec, tf.TensorSpec) and (spec.shape.rank or 0) <= 1
    }
    yield from dataset.map(
        lambda example: {name: example[name] for name in flat}
    ).as_numpy_iterator()


def _description(value: Any) -> dict[str, Any]:
    tensor = tf.constant(value)
    return {"shape": [None] * tensor.shape.rank, "dtype": tensor.dtype.name}
