"""What to train on."""

import dataclasses

from moe_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """A task, cut into batches.

    Attributes:
        task: `embedded`, `c4`, `text:GLOB` or any task registered with seqio.
        sequence_length: S, tokens in a row.
        batch_size: B, rows in a step's batch over all devices.
        shards: streams that the training data are read as, each a part of every batch; a process
            reads only those with its rows. The batches depend on it, but not on the number of
            processes: use as many as the largest number of hosts that a run will have.
        vocabulary: a SentencePiece model; `embedded` is the package's own.
        seed: of the order of the training data.
        pack: pack several examples into a row, kept apart by segment ids, instead of cutting one
            stream (for tasks whose examples are not to be cut).
        eval_split: the split that evaluation reads.
        eval_batches: batches of an evaluation; 0 for the whole split.
        tfds_data_dir: where TensorFlow Datasets keeps its prepared data sets.
    """

    task: str = "embedded"
    sequence_length: int = 256
    batch_size: int = 32
    shards: int = 1
    vocabulary: str = "embedded"
    seed: int = 0
    pack: bool = False
    eval_split: str = "validation"
    eval_batches: int = 0
    tfds_data_dir: str | None = None

    def __post_init__(self) -> None:
        for name in ("sequence_length", "batch_size", "shards"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise UserError(f"Data.{name} must be a whole number above 0, not {value!r}")
        if self.batch_size % self.shards:
            raise UserError(
                f"Data.shards = {self.shards} does not divide Data.batch_size = {self.batch_size}"
            )
        if self.eval_batches < 0:
            raise UserError(f"Data.eval_batches must be 0 (all) or more, not {self.eval_batches}")
