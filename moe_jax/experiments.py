"""Experiments: the complete, validated configuration of a run."""

import dataclasses
from typing import Any

import jax

import moe_jax.routers  # noqa: F401  Registers the routers.
from moe_jax import config, config_choice
from moe_jax.config_source import ConfigSource
from moe_jax.data.config import DataConfig
from moe_jax.errors import UserError, nearest
from moe_jax.evaluation.perplexity import Perplexity
from moe_jax.evaluation.sampling import SamplingConfig
from moe_jax.evaluation.task_scores import TaskScores
from moe_jax.flops import ParameterCount, count_parameters, train_flops_per_token
from moe_jax.models.config import ModelConfig
from moe_jax.models.functional import LanguageModel
from moe_jax.registration import configurable
from moe_jax.routing.router import Router
from moe_jax.settings import PositiveInt, Settings, rule
from moe_jax.sharding import mesh
from moe_jax.sharding.mesh import MeshConfig
from moe_jax.sharding.partition import (
    SINGLE_DEVICE,
    Partition,
    make_abstract_partition,
    make_partition,
)
from moe_jax.sharding.rules import BATCH_AXES
from moe_jax.training.checkpointing.checkpoint_config import CheckpointConfig
from moe_jax.training.fault_tolerance.watchdog import WatchdogConfig
from moe_jax.training.initial import InitialConfig
from moe_jax.training.loop import TrainConfig
from moe_jax.training.loss_spike_guard import GuardConfig
from moe_jax.training.metric_writers.config import WriterConfig
from moe_jax.training.optimizers import Optimizer
from moe_jax.training.step import LossConfig, StepOptions, make_train_step
from moe_jax.training.task_metrics import PREFIX


@configurable
@dataclasses.dataclass(frozen=True)
class Experiment(Settings):
    """The configuration of a model, its data and its training.

    Attributes:
        model: shape and options of the model.
        optimizer: the optimizer with its schedule; its `frozen` is set to `Train.frozen`.
        train: steps, logging, evaluation.
        router: the router; None for a dense model.
        mesh: the device mesh and the sharding of arrays over it.
        data: task and batch.
        loss: weights and options of the loss.
        guard: conditions under which updates are skipped.
        checkpoints: frequency and number of checkpoints.
        watchdog: time limits after which a process counts as hung.
        writers: destinations of metrics.
        sampling: settings of text generation.
        task_scores: settings of the scores of tasks with inputs and targets.
        initial: the checkpoint of another run that a new run starts from.
    """

    model: ModelConfig
    optimizer: Optimizer
    train: TrainConfig
    router: Router | None = None
    mesh: MeshConfig = dataclasses.field(default_factory=MeshConfig)
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    loss: LossConfig = dataclasses.field(default_factory=LossConfig)
    guard: GuardConfig = dataclasses.field(default_factory=GuardConfig)
    checkpoints: CheckpointConfig = dataclasses.field(default_factory=CheckpointConfig)
    watchdog: WatchdogConfig = dataclasses.field(default_factory=WatchdogConfig)
    writers: WriterConfig = dataclasses.field(default_factory=WriterConfig)
    sampling: SamplingConfig = dataclasses.field(default_factory=SamplingConfig)
    task_scores: TaskScores = dataclasses.field(default_factory=TaskScores)
    initial: InitialConfig = dataclasses.field(default_factory=InitialConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        # Whatever uses the optimizer then leaves the frozen parameters alone.
        optimizer = dataclasses.replace(self.optimizer, frozen=self.train.frozen)
        object.__setattr__(self, "optimizer", optimizer)

    @staticmethod
    @rule
    def _batch_divides(data: DataConfig, train: TrainConfig) -> None:
        rows, parts = data.batch_size, train.accumulation
        if rows % parts:
            raise UserError(
                f"Train.accumulation = {parts} does not divide Data.batch_size = {rows}"
            )

    @staticmethod
    @rule
    def _experts_have_a_router(model: ModelConfig, router: Router | None) -> None:
        if model.num_experts and router is None:
            raise UserError(
                f"Model.num_experts = {model.num_experts} needs a router: include a file of "
                "routers/, or set Experiment.router"
            )

    @staticmethod
    @rule
    def _router_fits(
        model: ModelConfig, router: Router | None, data: DataConfig, train: TrainConfig
    ) -> None:
        rows, parts = data.batch_size, train.accumulation
        if model.num_experts and router is not None and rows % parts == 0:
            router.check(rows // parts, data.sequence_length, model.num_experts)

    @staticmethod
    @rule
    def _the_best_is_kept(train: TrainConfig, checkpoints: CheckpointConfig) -> None:
        if not train.patience:
            return
        if not checkpoints.keep_best:
            raise UserError(
                f"Train.patience = {train.patience} ends training some evaluations after the best "
                "one: set Checkpoints.keep_best above 0 to keep its checkpoint"
            )
        if train.eval_every % checkpoints.every:
            raise UserError(
                f"Train.patience needs a checkpoint of every evaluation: Checkpoints.every = "
                f"{checkpoints.every} does not divide Train.eval_every = {train.eval_every}"
            )

    @staticmethod
    @rule
    def _the_best_has_a_metric(checkpoints: CheckpointConfig, task_scores: TaskScores) -> None:
        metric = checkpoints.ranking.metric
        if metric.startswith(PREFIX):
            if not task_scores.in_training:
                raise UserError(
                    f"Checkpoints.best_is = {checkpoints.best_is!r} is a score of the task: set "
                    "TaskScores.in_training = True to compute it at every evaluation"
                )
        elif metric not in (known := Perplexity(0, 0, 1, 1).as_dict()):
            raise UserError(
                f"Checkpoints.best_is names {metric!r}, which no evaluation has; known: "
                f"{', '.join(known)}, and task/METRIC.{nearest(metric, known)}"
            )

    @staticmethod
    @rule
    def _curriculum_has_experts(model: ModelConfig, data: DataConfig) -> None:
        if data.curriculum is not None and not model.num_experts:
            raise UserError(
                f"Data.curriculum = {data.curriculum!r} orders rows by how many experts they get: "
                "it needs Model.num_experts above 0"
            )

    @property
    def active_router(self) -> Router | None:
        """The router, if the model has experts to route to."""
        return self.router if self.model.num_experts else None

    def partition(self) -> Partition:
        """Makes the partition over all devices of all processes.

        Raises:
            UserError: if the mesh or the number of rows does not fit the devices.
        """
        devices = mesh.available_devices()
        if len(devices) == 1:
            self.mesh.sizes(1)
            return SINGLE_DEVICE
        return self.partition_of(devices)

    def partition_of(self, devices: list[jax.Device]) -> Partition:
        """Makes the partition over given devices, which may be those of an unavailable topology.

        Raises:
            UserError: if the mesh or the number of rows does not fit the devices.
        """
        return self._checked(make_partition(self.mesh, devices))

    def abstract_partition(self, devices: int) -> Partition:
        """Makes the partition over a number of abstract devices, which provides shardings only.

        Raises:
            UserError: if the mesh or the number of rows does not fit the devices.
        """
        return self._checked(make_abstract_partition(self.mesh, devices))

    def _checked(self, partition: Partition) -> Partition:
        rows, parts = self.data.batch_size // self.train.accumulation, partition.batch_shards
        if rows % parts:
            raise UserError(
                f"{rows} rows (Data.batch_size / Train.accumulation) do not divide over the "
                f"{parts} devices of the mesh axes {', '.join(BATCH_AXES)}"
            )
        heads, tensor = self.model.num_heads, partition.size("tensor")
        for name, size in (("num_heads", heads), ("d_model", self.model.d_model)):
            if size % tensor:
                raise UserError(f"Mesh.tensor = {tensor} does not divide Model.{name} = {size}")
        return partition

    def language_model(self, partition: Partition = SINGLE_DEVICE) -> LanguageModel:
        """Returns the model without its arrays, for a mesh or a single device.

        Raises:
            UserError: if a parameter cannot be sharded over the mesh.
        """
        return LanguageModel(self.model, self.active_router, partition)

    def train_step(self, model: LanguageModel) -> Any:
        """Returns the jitted training step, (state, batch) -> (state, metrics)."""
        train = self.train
        options = StepOptions(train.accumulation, train.seed, self.guard, train.compiler_options)
        return make_train_step(model, self.optimizer, self.loss, options)

    @property
    def experts_per_token(self) -> float:
        """Mean number of experts per token (`Router.experts_per_token`); 0 for a dense model."""
        return self.active_router.experts_per_token if self.active_router else 0.0

    def parameters(self) -> ParameterCount:
        """Counts the parameters of the model."""
        learned = self.active_router is None or self.active_router.is_learned
        return count_parameters(self.model, self.experts_per_token, learned)

    def train_flops_per_token(self) -> float:
        """Computes the FLOPs of a training step per token."""
        return train_flops_per_token(self.model, self.experts_per_token, self.data.sequence_length)

    def check_vocabulary(self, size: int) -> None:
        """Checks that the model's embedding has a row for every token of the vocabulary.

        Raises:
            UserError: if `Model.vocab_size` is too small.
        """
        if self.model.vocab_size < size:
            raise UserError(
                f"Model.vocab_size = {self.model.vocab_size} is smaller than the vocabulary of "
                f"{size} tokens; use at least {-(-size // 128) * 128} (a multiple of 128)"
            )


@configurable("TokenFrequencies")
def token_frequencies(data: DataConfig, batches: PositiveInt = 16) -> tuple[int, ...]:
    """Counts the occurrences of each token id in the inputs of the first training batches.

    Args:
        data: the training data.
        batches: number of batches.
    """
    from moe_jax.data.pipeline.batch_source import open_source

    return open_source(data).count_tokens(batches)


def load(source: ConfigSource) -> Experiment:
    """Builds the experiment that gin files and bindings configure.

    Raises:
        UserError: for all mistakes in the configuration, one per line, and for imports that are
            not allowed (`gin_imports`).
    """
    with config.collect():
        config.parse(source)
        config_choice.check_bases("Experiment", "router")
        router = config_choice.referred("Experiment", "router")
        # The saved configuration then has the default weights that the run was trained with.
        config_choice.add_items("Loss", "weights", getattr(router, "loss_weights", {}))
        experiment = config.build("Experiment")
        config.check_macros(source.bindings)
    assert isinstance(experiment, Experiment)
    return experiment


def load_data(source: ConfigSource) -> DataConfig:
    """Builds only the data configuration from gin files and bindings.

    A data file or a `--gin.TASK` is enough; the other settings of a run are not required.

    Raises:
        UserError: for any mistake in the configuration of the data.
    """
    sets_task = any(b.partition("=")[0].strip() == "TASK" for b in source.bindings)
    if sets_task or source.files:
        source = dataclasses.replace(source, bindings=(*source.bindings, "Data.task=%TASK"))
    with config.collect():
        config.parse(source)
        data = config.build("Data")
    assert isinstance(data, DataConfig)
    return data
