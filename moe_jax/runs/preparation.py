"""Preparation of a training run: opens the data while the training step is compiled."""

import contextlib
import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from etils import epath

from moe_jax.data.batch import Batch
from moe_jax.data.import_tensorflow import get_ready_for_threads, load_libraries
from moe_jax.data.pipeline.abstract_batch import abstract_batch
from moe_jax.data.pipeline.batch_source import open_source
from moe_jax.data.pipeline.device_batches import curriculum_batches, train_batches
from moe_jax.data.pipeline.example_prompts import ExamplePrompt, example_prompt
from moe_jax.experiments import Experiment
from moe_jax.models.functional import LanguageModel
from moe_jax.runs.background import Background
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
    """The opened data of a run.

    Attributes:
        vocabulary: a `seqio.SentencePieceVocabulary`, or of cached rows a `RowVocabulary`.
        batches: the training batches.
        curriculum: the source of the batches, if they follow a curriculum.
        held_out: the evaluation batches.
        bytes_of_token: number of bytes of text per token, [V].
        asked: an example prompt for this kind of data.
        notes: messages about the data files, one per line.
    """

    vocabulary: Any
    batches: CheckpointableIterator
    curriculum: "CurriculumBatches | None"
    held_out: list[Batch]
    bytes_of_token: np.ndarray
    asked: ExamplePrompt
    notes: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class PreparedRun:
    """A run that is ready to train.

    Attributes:
        data: the opened data.
        state: the initial training state; None if it will be restored.
        is_compiled: true if the step is already compiled for the batches of the data.
    """

    data: OpenData
    state: TrainState | None
    is_compiled: bool


@dataclasses.dataclass(frozen=True)
class RunSetup:
    """The parts of a run that do not depend on its data.

    Attributes:
        experiment: the experiment.
        model: its model.
        step: its jitted training step.
        directory: the run directory.
        limit: the memory of a device; None disables the memory check.
        resumes: true if the state will be restored from a checkpoint.
        initial: the state before the first step, if it is that of another run.
    """

    experiment: Experiment
    model: LanguageModel
    step: Any
    directory: epath.Path
    limit: MemoryLimit | None
    resumes: bool
    initial: TrainState | None = None

    def new_state(self) -> TrainState:
        """Returns the training state before the first step."""
        if self.initial is not None:
            return self.initial
        return make_state(self.model, self.experiment.optimizer, self.experiment.train.seed)

    def lower(self) -> jax.stages.Lowered | None:
        """Lowers the step; returns None if the shapes of batches depend on the data."""
        rows = self.model.partition.rows
        batch = abstract_batch(self.experiment.data, rows)
        if batch is None:
            return None
        optimizer = self.experiment.optimizer
        restored = self.resumes or self.initial is not None
        return lower_train_step(self.step, self.model, optimizer, batch, restored=restored)

    def compile(self, lowered: jax.stages.Lowered, say: Callable[[str], None]) -> None:
        """Compiles the step and checks that its memory fits the device."""
        total = step_bytes(lowered.compile())
        if self.limit is not None and total is not None:
            state = abstract_state(self.model, self.experiment.optimizer)
            check_step(total, state, self.limit, say)


def prepare(setup: RunSetup, account: GoodputRecorder, say: Callable[[str], None]) -> PreparedRun:
    """Opens the data, compiles the step, and initializes the state unless it will be restored.

    Importing TensorFlow and opening the data occupy one core; compilation uses the others. Cached
    rows are opened without TensorFlow.

    Args:
        setup: the run.
        account: records the time spent compiling.
        say: prints a line.

    Raises:
        UserError: if the data of a process cannot be used, or the memory does not suffice.
    """
    state = None
    # Libraries are loaded during tracing, but TensorFlow is imported after it: two threads that run
    # Python code slow each other down.
    with propagate_errors():
        _check_rows(setup.experiment)
    needs_tensorflow = setup.experiment.data.rows_dir is None
    loading = Background(load_libraries) if needs_tensorflow else contextlib.nullcontext()
    with loading, account.measure("compile"):
        lowered = setup.lower()
    if needs_tensorflow:
        get_ready_for_threads()
    with Background(lambda: open_data(setup, say)) as opening:
        if lowered is not None:
            with account.measure("compile"):
                setup.compile(lowered, say)
        if not setup.resumes:
            state = setup.new_state()
        with propagate_errors():
            data = opening.result()
    return PreparedRun(data, state, lowered is not None)


def _check_rows(experiment: Experiment) -> None:
    """Refuses cached rows that do not fit before anything is compiled; it takes milliseconds.

    Raises:
        UserError: if the rows are those of another configuration, or too few.
    """
    if experiment.data.rows_dir is not None:
        source = open_source(experiment.data)
        source.check_steps(experiment.train.steps)
        source.train_batches()


def open_data(setup: RunSetup, say: Callable[[str], None]) -> OpenData:
    """Opens the data of a run; imports TensorFlow, except for cached rows.

    Raises:
        UserError: if the data cannot be used.
    """
    experiment, partition = setup.experiment, setup.model.partition
    config = experiment.data
    source = open_source(config)
    notes = find_data_files(config, setup.directory, setup.resumes, say)
    vocabulary = source.vocabulary()
    experiment.check_vocabulary(vocabulary.vocab_size)
    batches: CheckpointableIterator
    curriculum = None
    if config.curriculum is None:
        batches = train_batches(source, config, partition)
    else:
        batches, curriculum = curriculum_batches(config, partition)
    held_out = source.eval_batches()
    return OpenData(
        vocabulary=vocabulary,
        batches=batches,
        curriculum=curriculum,
        held_out=held_out,
        bytes_of_token=source.token_bytes(experiment.model.vocab_size),
        asked=example_prompt(config, held_out[0], vocabulary),
        notes=notes,
    )
