"""Gets a run ready: its data are opened while its step is compiled."""

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from etils import epath

from moe_jax.commands.background import Background
from moe_jax.data.batch import Batch
from moe_jax.data.import_tensorflow import get_ready_for_threads, load_libraries
from moe_jax.data.pipeline.abstract_batch import abstract_batch
from moe_jax.data.pipeline.example_prompts import ExamplePrompt, example_prompt
from moe_jax.experiment import Experiment
from moe_jax.models.functional import LanguageModel
from moe_jax.sharding.processes import propagate_errors
from moe_jax.training.ahead_of_time import lower_train_step
from moe_jax.training.loop import CheckpointableIterator
from moe_jax.training.memory.memory_estimate import MemoryLimit, check_step, step_bytes
from moe_jax.training.monitoring.goodput_recorder import GoodputRecorder
from moe_jax.training.run_directory.data_manifest import find_data_files
from moe_jax.training.state import TrainState, abstract_state, make_state

if TYPE_CHECKING:
    from moe_jax.data.pipeline.curriculum import CurriculumBatches


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
    batches: CheckpointableIterator
    curriculum: "CurriculumBatches | None"
    held_out: list[Batch]
    bytes_of_token: np.ndarray
    asked: ExamplePrompt
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


@dataclasses.dataclass(frozen=True)
class Start:
    """What is known of a run before its data are.

    Attributes:
        described: the run.
        model: its model.
        step: its jitted step.
        directory: of the run.
        limit: the memory of a device; None to allocate without looking.
        goes_on: whether the state will come from a checkpoint.
    """

    described: Experiment
    model: LanguageModel
    step: Any
    directory: epath.Path
    limit: MemoryLimit | None
    goes_on: bool

    def new_state(self) -> TrainState:
        """Makes the state before the first step."""
        return make_state(self.model, self.described.optimizer, self.described.train.seed)

    def lower(self) -> jax.stages.Lowered | None:
        """Traces the step; None where the shapes of batches are known by the data only."""
        rows = self.model.partition.rows if self.model.partition else None
        batch = abstract_batch(self.described.data, rows)
        if batch is None:
            return None
        optimizer = self.described.optimizer
        return lower_train_step(self.step, self.model, optimizer, batch, restored=self.goes_on)

    def compile(self, lowered: jax.stages.Lowered, say: Callable[[str], None]) -> None:
        """Compiles the step, and compares what it takes with the memory there is."""
        total = step_bytes(lowered.compile())
        if self.limit is not None and total is not None:
            state = abstract_state(self.model, self.described.optimizer)
            check_step(total, state, self.limit, say)


def get_ready(start: Start, account: GoodputRecorder, say: Callable[[str], None]) -> Ready:
    """Opens the data, compiles the step, and makes a state unless it will be restored.

    Importing TensorFlow and opening the data keep one core busy, compiling keeps the others.

    Args:
        start: of the run.
        account: told what compiling takes.
        say: prints a line.

    Raises:
        UserError: if the data of any process cannot be used, or the memory does not suffice.
    """
    state = None
    # TensorFlow is imported after that: two threads that run Python only slow each other down.
    with Background(load_libraries), account.measure("compile"):
        lowered = start.lower()
    get_ready_for_threads()
    with Background(lambda: open_data(start, say)) as opening:
        if lowered is not None:
            with account.measure("compile"):
                start.compile(lowered, say)
        if not start.goes_on:
            state = start.new_state()
        with propagate_errors():
            data = opening.result()
    return Ready(data, state, lowered is not None)


def open_data(start: Start, say: Callable[[str], None]) -> OpenData:
    """Opens the data of a run; the first to need TensorFlow, which it imports.

    Raises:
        UserError: if they cannot be used.
    """
    from moe_jax.data.pipeline import input_pipeline
    from moe_jax.data.pipeline.device_batches import curriculum_batches, train_batches

    described, partition = start.described, start.model.partition
    config = described.data
    notes = find_data_files(config, start.directory, start.goes_on, say)
    vocabulary = input_pipeline.vocabulary_of(config)
    described.check_vocabulary(vocabulary.vocab_size)
    batches: CheckpointableIterator
    curriculum = None
    if config.curriculum is None:
        batches = train_batches(config, partition)
    else:
        batches, curriculum = curriculum_batches(config, partition)
    held_out = input_pipeline.eval_batches(config)
    return OpenData(
        vocabulary=vocabulary,
        batches=batches,
        curriculum=curriculum,
        held_out=held_out,
        bytes_of_token=input_pipeline.token_bytes(config, described.model.vocab_size),
        asked=example_prompt(config, held_out[0], vocabulary),
        notes=notes,
    )
