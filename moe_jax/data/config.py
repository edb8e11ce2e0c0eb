"""The configuration of the data."""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Literal

from moe_jax.data.span_corruption import span_corruption_lengths
from moe_jax.errors import UserError
from moe_jax.registration import configurable
from moe_jax.settings import Name, Path, Positive, PositiveInt, Seed, Settings, counted, rule

Objective = Literal["lm", "prefix_lm", "span_corruption"]
# See moe_jax.data.pipeline.curriculum.
CurriculumName = Literal["similarity", "mean", "distance"]


@configurable
@dataclasses.dataclass(frozen=True)
class DataConfig(Settings, called="Data"):
    """A task or mixture, and how batches are made of it.

    Attributes:
        task: `embedded`, `c4`, `text:FILES` or any other that `moe-jax data list` shows; several
            with their rates make a mixture: `{'c4': 0.9, 'wikitext103': 0.1}`.
        sequence_length: S, tokens in a sequence.
        batch_size: B, sequences in a step's batch over all devices.
        shards: number of shards of the training data, each a fixed part of every batch; a process
            reads only those with its sequences. The batches depend on it, but not on the number of
            processes: use the largest number of hosts that a run will have.
        vocabulary: a SentencePiece model; `embedded` is the package's own.
        seed: seed of the order of the training data.
        shuffle: shuffle the training data in each epoch; without it, they are read as stored.
        objective: objective of plain texts: `lm` (every token is predicted), `prefix_lm` (the
            tokens after a random position are predicted), `span_corruption` (T5's: masked spans
            are predicted after the rest). Tasks with inputs and targets always
            predict the targets.
        pack: several documents in a sequence are separated by segment ids and positions. Plain
            texts are always split into full sequences; of other tasks whole examples are packed
            until a sequence is full.
        targets_length: maximum number of tokens of the target, for tasks with inputs and targets;
            0 for the task's own.
        eval_split: split that evaluation reads.
        eval_batches: number of batches of an evaluation; 0 for the whole split.
        tfds_data_dir: directory of prepared TensorFlow Datasets.
        curriculum: order each epoch's sequences by the number of experts of their tokens, from easy
            to hard (`similarity`, `mean` or `distance`: moe_jax/data/pipeline/curriculum.py); None
            shuffles.
        cache_dir: directory of tasks tokenised by `moe-jax data cache` or seqio's tools; None reads
            and tokenises the texts.
        rows_dir: directory of cached rows (`moe-jax data cache --rows`), which are read without
            TensorFlow in place of the task; None reads the task.
        allow_changed_files: resume a run although the user's files are not those that it was
            trained on: they are read from their start, and texts that are held out now may have
            been trained on. Otherwise that is refused.
    """

    task: Name | tuple[tuple[Name, Positive], ...] | Mapping[Name, Positive] = "embedded"
    sequence_length: PositiveInt = 256
    batch_size: PositiveInt = 32
    shards: PositiveInt = 1
    vocabulary: Path = "embedded"
    seed: Seed = 0
    shuffle: bool = True
    objective: Objective = "lm"
    pack: bool = False
    targets_length: Annotated[int, counted("the task's own")] = 0
    eval_split: Name = "validation"
    eval_batches: Annotated[int, counted("all")] = 0
    tfds_data_dir: Path | None = None
    curriculum: Annotated[CurriculumName | None, "to shuffle"] = None
    cache_dir: Path | None = None
    rows_dir: Path | None = None
    allow_changed_files: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.task, Mapping):
            object.__setattr__(self, "task", tuple(sorted(self.task.items())))

    @staticmethod
    @rule
    def _shards_are_equal(shards: int, batch_size: int) -> None:
        if batch_size % shards:
            raise UserError(
                f"Data.shards = {shards} does not divide Data.batch_size = {batch_size}"
            )

    @staticmethod
    @rule
    def _targets_leave_room(targets_length: int, sequence_length: int) -> None:
        if targets_length >= sequence_length:
            raise UserError(
                f"Data.targets_length = {targets_length} must be less than "
                f"Data.sequence_length = {sequence_length}"
            )

    @staticmethod
    @rule
    def _spans_fit(objective: str, sequence_length: int) -> None:
        if objective == "span_corruption":
            span_corruption_lengths(sequence_length)

    @staticmethod
    @rule
    def _mixture_has_tasks(task: str | Mapping[str, float]) -> None:
        if not task:
            raise UserError("Data.task is a mixture of no tasks")

    @staticmethod
    @rule
    def _rows_have_an_order(rows_dir: str | None, curriculum: str | None) -> None:
        if rows_dir is not None and curriculum is not None:
            raise UserError(
                f"Data.rows_dir holds rows in a fixed order, and Data.curriculum = {curriculum!r} "
                "orders them by the model that is trained: set one of them to None"
            )

    @property
    def rates(self) -> dict[str, float]:
        """The tasks of a mixture with their rates; a single task has the rate 1."""
        return {self.task: 1.0} if isinstance(self.task, str) else dict(self.task)

    @property
    def task_name(self) -> str:
        """The task or mixture in one printable line."""
        parts = [f"{rate:g} {name}" for name, rate in self.rates.items()]
        name = self.task if isinstance(self.task, str) else " + ".join(parts)
        # Names of files may have bytes that are not UTF-8.
        return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
