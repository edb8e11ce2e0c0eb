"""Registers the task or mixture of a configuration with seqio.

A task is registered on first use, under a name made from its content (vocabulary, objective, a
user's files) and not from its location, so that a cache of it can be moved. Tasks that a user has
registered with seqio are used as they are.
"""

import dataclasses
import functools
import hashlib
import os
import re
from collections.abc import Callable, Mapping
from typing import Any

import seqio
import tensorflow as tf

from moe_jax.data.config import DataConfig
from moe_jax.data.sources.curriculum_source import curriculum_source, order_digest, scored_config
from moe_jax.data.sources.embedded_corpus import embedded_documents
from moe_jax.data.sources.tfds_source import tfds_source
from moe_jax.data.sources.user_files import UserFiles, find_user_files
from moe_jax.data.tasks import catalog
from moe_jax.data.tasks.objectives import keep_text, objective
from moe_jax.data.tasks.task_definition import TaskDefinition
from moe_jax.data.tasks.vocabulary import load_vocabulary
from moe_jax.errors import UserError

# Kinds of tasks by their examples.
STREAM = "stream"  # a continuous text, split into sequences
EXAMPLES = "examples"  # `targets` only, whole
PROMPTED = "prompted"  # `inputs` and `targets`


@dataclasses.dataclass(frozen=True)
class RegisteredTask:
    """A task or mixture that is registered with seqio.

    Attributes:
        seqio_name: its name there.
        kind: `STREAM`, `EXAMPLES` or `PROMPTED`.
        targets_length: maximum tokens of a prompted task's target; 0 for the sequence length.
        notes: lines for the user about its files.
        has_fixed_order: whether its order is a curriculum, which is never shuffled.
        files: the user's files that it reads.
        is_user_registered: whether a user registered it, with preprocessors that AutoGraph may
            have to convert.
    """

    seqio_name: str
    kind: str
    targets_length: int = 0
    notes: tuple[str, ...] = ()
    has_fixed_order: bool = False
    files: tuple[UserFiles, ...] = ()
    is_user_registered: bool = False

    @property
    def provider(self) -> seqio.Task | seqio.Mixture:
        """The seqio task or mixture."""
        return seqio.get_mixture_or_task(self.seqio_name)

    def feature_lengths(self, config: DataConfig) -> dict[str, int]:
        """Returns the maximum number of tokens of each feature."""
        length = config.sequence_length
        if self.kind != PROMPTED:
            return {"targets": length}
        # The inputs get the rest of the sequence, at least one token.
        targets = config.targets_length or self.targets_length or length
        return {"inputs": length, "targets": max(min(targets, length - 1), 1)}


def find_task(config: DataConfig) -> RegisteredTask:
    """Registers the task or mixture of a configuration with seqio, if it is not yet.

    Raises:
        UserError: for a name that neither this package nor seqio knows, or for files or data sets
            that are not there.
    """
    if isinstance(config.task, str) and config.task not in catalog.mixtures():
        return _single_task(config, config.task)
    return _mixture(config, _single_tasks(config.rates))


def single_tasks(config: DataConfig) -> list[str]:
    """Returns the names of a configuration's tasks, those of the package's mixtures one by one."""
    return list(_single_tasks(config.rates))


def _single_tasks(rates: Mapping[str, float]) -> dict[str, float]:
    """Replaces the package's mixtures by their tasks, which share the mixture's rate.

    Tasks with no training examples, such as GLUE's diagnostics, have the rate 0 and are dropped.
    """
    single: dict[str, float] = {}
    for name, rate in rates.items():
        mixture = catalog.mixtures().get(name, {name: 1.0})
        total = sum(mixture.values())
        for task, share in mixture.items():
            if share > 0:
                single[task] = single.get(task, 0.0) + rate * share / total
    return single


def _mixture(config: DataConfig, rates: Mapping[str, float]) -> RegisteredTask:
    parts = {name: _single_task(config, name) for name in rates}
    kinds = {part.kind for part in parts.values()}
    if len(kinds) > 1:
        shown = ", ".join(f"{name} is {part.kind}" for name, part in parts.items())
        raise UserError(
            f"a mixture needs tasks of one kind ({shown}); Data.objective = 'prefix_lm' or "
            "'span_corruption' makes a plain text a task with inputs and targets"
        )
    shares = [f"{part.seqio_name}={rates[n]}" for n, part in parts.items()]
    name = _identifier("mixture", config.tfds_data_dir or "", *shares)
    if name not in seqio.MixtureRegistry.names():
        seqio.MixtureRegistry.add(
            name, [(part.seqio_name, float(rates[n])) for n, part in parts.items()]
        )
    lengths = [part.targets_length for part in parts.values()]
    notes = tuple(note for part in parts.values() for note in part.notes)
    files = tuple(own for part in parts.values() for own in part.files)
    length = 0 if 0 in lengths else max(lengths)
    is_user_registered = any(part.is_user_registered for part in parts.values())
    return RegisteredTask(
        name, kinds.pop(), length, notes, files=files, is_user_registered=is_user_registered
    )


def _single_task(config: DataConfig, name: str) -> RegisteredTask:
    """Registers a task."""
    definition = catalog.definitions().get(catalog.full_name(name))
    if definition is not None:
        return _text_to_text_task(config, definition)
    if name.startswith(catalog.CURRICULUM_PREFIX):
        return _curriculum_task(config, name.removeprefix(catalog.CURRICULUM_PREFIX))
    text = _find_plain_text(config, name)
    if text is not None:
        return _plain_text_task(config, name, text)
    known = [*seqio.TaskRegistry.names(), *seqio.MixtureRegistry.names()]
    if name in known:
        features = seqio.get_mixture_or_task(name).output_features
        return RegisteredTask(
            name, PROMPTED if "inputs" in features else EXAMPLES, is_user_registered=True
        )
    raise UserError(catalog.unknown_task(name) or f"{name!r} is no single task")


def _curriculum_task(config: DataConfig, directory: str) -> RegisteredTask:
    """Registers the examples of a task in the order of their scores."""
    scored = scored_config(directory, config)
    base = find_task(scored)
    if not isinstance(base.provider, seqio.Task):
        raise UserError(f"{directory} holds the scores of a mixture: set Data.curriculum instead")
    lengths = base.feature_lengths(scored)
    registered = _register(
        _identifier("curriculum", directory, base.seqio_name, order_digest(directory)),
        config,
        source=lambda: curriculum_source(directory, base.provider, lengths, scored.seed),
        preprocessors=[],
        output_features=base.provider.output_features,
        metric_fns=[],
    )
    return dataclasses.replace(base, seqio_name=registered, has_fixed_order=True)


@dataclasses.dataclass(frozen=True)
class _PlainText:
    """A plain text.

    Attributes:
        source: source of its documents.
        field: field with the text.
        files: the user's files that it reads, or None.
    """

    source: seqio.DataSource
    field: str = "text"
    files: UserFiles | None = None


def _plain_text_task(config: DataConfig, name: str, text: _PlainText) -> RegisteredTask:
    """Registers a plain text under the configuration's objective."""
    plain = config.objective == "lm"
    vocabulary = load_vocabulary(config.vocabulary)
    feature = seqio.Feature(vocabulary, add_eos=True, dtype=tf.int32)
    files = () if text.files is None else (text.files,)
    registered = _register(
        _identifier(
            name, config.objective, _vocabulary_digest(vocabulary), *(f.digest() for f in files)
        ),
        config,
        source=lambda: text.source,
        preprocessors=[
            functools.partial(keep_text, field=text.field),
            seqio.preprocessors.tokenize,
            # Every document has an end token, in the stream as in the cache.
            seqio.preprocessors.append_eos,
            seqio.CacheDatasetPlaceholder(),
            objective(config.objective, vocabulary),
        ],
        output_features={"targets": feature} if plain else _both(feature),
        metric_fns=[],
    )
    notes = tuple(note for part in files for note in part.notes())
    return RegisteredTask(registered, STREAM if plain else PROMPTED, 0, notes, files=files)


def _text_to_text_task(config: DataConfig, definition: TaskDefinition) -> RegisteredTask:
    """Registers a text-to-text task."""
    vocabulary = load_vocabulary(config.vocabulary)
    registered = _register(
        _identifier(definition.name, _vocabulary_digest(vocabulary)),
        config,
        source=lambda: tfds_source(definition.source, config.tfds_data_dir, definition.splits),
        preprocessors=[
            definition.preprocessor,
            seqio.preprocessors.tokenize,
            seqio.CacheDatasetPlaceholder(),
            seqio.preprocessors.append_eos_after_trim,
        ],
        output_features=_both(seqio.Feature(vocabulary, add_eos=True, dtype=tf.int32)),
        postprocess_fn=definition.postprocessor,
        metric_fns=list(definition.metric_fns),
    )
    return RegisteredTask(registered, PROMPTED, definition.targets_length)


# Data directory of each registered task at its registration.
_directories: dict[str, str | None] = {}


def _register(
    name: str, config: DataConfig, source: Callable[[], seqio.DataSource], **task: Any
) -> str:
    """Registers a task, if it is not yet with the same data directory; returns its name."""
    known = name in seqio.TaskRegistry.names()
    if known and _directories[name] == config.tfds_data_dir:
        return name
    made = source()
    if known:
        seqio.TaskRegistry.remove(name)
    seqio.TaskRegistry.add(name, source=made, **task)
    _directories[name] = config.tfds_data_dir
    return name


def _vocabulary_digest(vocabulary: seqio.SentencePieceVocabulary) -> str:
    return hashlib.sha256(vocabulary.sp_model).hexdigest()


def _both(feature: seqio.Feature) -> dict[str, seqio.Feature]:
    return {"inputs": feature, "targets": feature}


def _find_plain_text(config: DataConfig, name: str) -> _PlainText | None:
    """Returns the plain text of a name, or None if it is none."""
    prefix, _, rest = name.partition(":")
    if name == "embedded":
        return _PlainText(_embedded_source())
    if name in catalog.PLAIN_TEXTS:
        known = catalog.PLAIN_TEXTS[name]
        return _PlainText(tfds_source(known.source, config.tfds_data_dir), known.field)
    if prefix not in catalog.USER_FILE_KINDS or not rest:
        return None
    files = find_user_files(name)
    if files is not None:
        return _PlainText(files.source(), files=files)
    data_set, _, field = rest.partition("#")
    return _PlainText(tfds_source(data_set, config.tfds_data_dir), field or "text")


def _embedded_source() -> seqio.DataSource:
    def dataset(split: str, shuffle_files: bool, seed: int | None = None) -> tf.data.Dataset:
        documents = embedded_documents(split)
        rows = tf.data.Dataset.from_tensor_slices({"text": documents})
        return rows.shuffle(len(documents), seed=seed) if shuffle_files else rows

    return seqio.FunctionDataSource(dataset, splits=["train", "validation"])


def _identifier(name: str, *rest: str) -> str:
    """Returns a valid and unique seqio name, which matches `catalog.INTERNAL_NAME`."""
    shown = re.sub(r"\W", "_", os.path.basename(name.rstrip("/*"))) or "task"
    digest = hashlib.sha256(
        "\0".join((name, *rest)).encode("utf-8", "surrogateescape")
    ).hexdigest()[:12]
    return f"{shown}__{digest}"
