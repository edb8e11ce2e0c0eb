"""Gets a run ready: its data are opened while its step is compiled."""

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from moe_jax.commands.background import Background
from moe_jax.data.batch import Batch
from moe_jax.data.expected import expected_batch
from moe_jax.data.import_tensorflow import get_ready_for_threads
from moe_jax.data.prompts import Asked, what_to_ask
from moe_jax.experiment import Experiment
from moe_jax.models.functional import LanguageModel
from moe_jax.sharding.partition import Partition
from moe_jax.sharding.processes import together
from moe_jax.training.account import Account
from moe_jax.training.compile_ahead import lower_ahead
from moe_jax.training.loop import Stream
from moe_jax.training.state import TrainState, make_state

if TYPE_CHECKING:
    from moe_jax.data.curriculum import CurriculumBatches


@dataclasses.dataclass(frozen=True)
class OpenData:
    """What a run reads.

    Attributes:
        vocabulary: seqio's.
        batches: to train on.
        curriculum: behind them, if they have one.
        held_out: batches to evaluate on.
        bytes_of_token: bytes of text that each token stands for, [V].
        asked: what a model of these data can be asked.
        notes: lines about the files.
    """

    vocabulary: Any
    batches: Stream
    curriculum: "CurriculumBatches | None"
    held_out: list[Batch]
    bytes_of_token: np.ndarray
    asked: Asked
    notes: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Ready:
    """What a run starts with.

    Attributes:
        data: opened.
        state: a new one; None if it is to be restored.
        is_compiled: whether the step is compiled for the batches of the data.
    """

    data: OpenData
    state: TrainState | None
    is_compiled: bool


def get_ready(
    described: Experiment,
    model: LanguageModel,
    step: Any,
    find: Callable[[], tuple[str, ...]],
    account: Account,
    *,
    restored: bool,
) -> Ready:
    """Opens the data, compiles the step, and makes a state unless it will be restored.

    Importing TensorFlow and opening the data keep one core busy, compiling keeps the others.

    Args:
        described: the run.
        model: its model.
        step: its jitted step.
        find: finds the data, and returns what is to be said of them.
        account: told what compiling takes.
        restored: whether the state will come from a checkpoint.

    Raises:
        UserError: if the data of any process cannot be used.
    """
    partition, optimizer = model.partition, described.optimizer
    expected = expected_batch(described.data, partition.rows if partition else None)
    lowered = state = None
    if expected is not None:
        # Before TensorFlow is imported: two threads that run Python only slow each other down.
        with account.spent("compile"):
            lowered = lower_ahead(step, model, optimizer, expected, restored=restored)
    get_ready_for_threads()
    with Background(lambda: open_data(described, partition, find)) as opening:
        if lowered is not None:
            with account.spent("compile"):
                lowered.compile()
        if not restored:
            state = make_state(model, optimizer, described.train.seed)
        with together():
            data = opening.result()
    return Ready(data, state, lowered is not None)


def open_data(
    described: Experiment, partition: Partition | None, find: Callable[[], tuple[str, ...]]
) -> OpenData:
    """Opens the data of a run; the first to need TensorFlow, which it imports.

    Raises:
        UserError: if they cannot be used.
    """
    from moe_jax.data import pipeline
    from moe_jax.data.placed import curriculum_batches, train_batches

    config = described.data
    notes = find()
    vocabulary = pipeline.vocabulary_of(config)
    described.check_vocabulary(vocabulary.vocab_size)
    batches: Stream
    curriculum = None
    if config.curriculum is None:
        batches = train_batches(config, partition)
    else:
        batches, curriculum = curriculum_batches(config, partition)
    held_out = pipeline.eval_batches(config)
    return OpenData(
        vocabulary=vocabulary,
        batches=batches,
        curriculum=curriculum,
        held_out=held_out,
        bytes_of_token=pipeline.token_bytes(config, described.model.vocab_size),
        asked=what_to_ask(config, held_out[0], vocabulary),
        notes=notes,
    )
