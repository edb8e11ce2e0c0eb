"""Training of an experiment in a run directory, from scratch or from its latest checkpoint."""

import contextlib
import dataclasses
import shlex
from collections.abc import Iterator
from typing import Any

import jax
from etils import epath

from moe_jax import config, experiments, jax_environment
from moe_jax.config_source import ConfigSource
from moe_jax.data.pipeline.example_prompts import has_padding
from moe_jax.errors import Interrupted, UserError
from moe_jax.experiments import Experiment
from moe_jax.library_output import suppress_library_output
from moe_jax.models.functional import LanguageModel
from moe_jax.runs import garbage_collection
from moe_jax.runs.device_mesh import make_checked_partition, mesh_sizes
from moe_jax.runs.final_predictions import write_final_predictions
from moe_jax.runs.generation import sample_after_training
from moe_jax.runs.held_out import make_evaluate
from moe_jax.runs.initialization import InitialState, initial_state
from moe_jax.runs.listener import TrainingListener
from moe_jax.runs.loading import Run
from moe_jax.runs.preparation import OpenData, PreparedRun, RunSetup, prepare
from moe_jax.runs.training_result import (
    TrainingResult,
    note_early_stop,
    read_early_stop,
    read_result,
)
from moe_jax.sharding.partition import Partition
from moe_jax.sharding.processes import gather, is_main, propagate_errors
from moe_jax.training.checkpointing.best import EarlyStop
from moe_jax.training.checkpointing.checkpoint_manager import CheckpointManager
from moe_jax.training.checkpointing.mismatch import explain_mismatch
from moe_jax.training.fault_tolerance.watchdog import HangReport, Watchdog
from moe_jax.training.loop import Curriculum, Instruments, Loop
from moe_jax.training.memory.memory_estimate import (
    MemoryCheckedStep,
    MemoryLimit,
    check_state,
    find_limit,
)
from moe_jax.training.metric_writers.jsonl_writer import read_metrics
from moe_jax.training.metric_writers.make_writer import make_writer
from moe_jax.training.monitoring.goodput_recorder import GoodputRecorder
from moe_jax.training.monitoring.profiling import Profiler
from moe_jax.training.run_directory import data_manifest, run_directory
from moe_jax.training.run_directory.config_difference import compare_configs
from moe_jax.training.run_directory.directory_lock import DirectoryLock
from moe_jax.training.state import TrainState, abstract_state
from moe_jax.waiting import waiting


@dataclasses.dataclass(frozen=True)
class TrainingOptions:
    """Settings of one training process.

    Attributes:
        command: the command line that continues the run, for messages and `owner.json`.
        process_age: seconds since the start of the process, counted as wall time of the run.
        debug: show the output of libraries.
    """

    command: tuple[str, ...] = ()
    process_age: float = 0.0
    debug: bool = False


def prepare_run(output_dir: str, source: ConfigSource) -> tuple[Run, Partition]:
    """Loads an experiment and creates its run directory.

    All processes of a run must call it.

    Returns:
        the run, and its partition over all devices.

    Raises:
        UserError: for a mistake in the configuration, a mesh that does not fit the devices, or a
            directory that cannot be used.
    """
    with propagate_errors():
        experiment = experiments.load(source)
    operative = config.operative()
    partition = make_checked_partition(experiment, operative)
    return Run(run_directory.prepare(output_dir), experiment, operative), partition


def train(
    run: Run,
    partition: Partition,
    options: TrainingOptions | None = None,
    listener: TrainingListener | None = None,
) -> TrainingResult:
    """Trains an experiment up to its last step; resumes from the latest checkpoint if there is one.

    All processes of a run must call it.

    Args:
        run: the experiment and its directory, see `prepare_run`.
        partition: shards the run over devices.
        options: settings of this process.
        listener: receives messages and progress.

    Raises:
        UserError: for errors that the user can correct.
        Interrupted: after Ctrl-C or SIGTERM, once a checkpoint is saved.
    """
    options, listener = options or TrainingOptions(), listener or TrainingListener()
    directory, say = run.directory, listener.message
    recorder = GoodputRecorder(directory, age=options.process_age, warn=say)
    with DirectoryLock(directory, list(options.command), say) as owner:
        listener.directory_acquired(directory)
        checkpoints = CheckpointManager(
            directory / run_directory.CHECKPOINTS, run.experiment.checkpoints, say, owner.check
        )
        session = _Session(run, partition, options, listener, checkpoints, owner, recorder)
        try:
            sample = session.train()
            write_final_predictions(run, partition, say)
            return read_result(directory, run.experiment, sample)
        finally:
            checkpoints.close()


@dataclasses.dataclass(frozen=True)
class _Session:
    """A training session in a run directory that this process has locked."""

    run: Run
    partition: Partition
    options: TrainingOptions
    listener: TrainingListener
    checkpoints: CheckpointManager
    owner: DirectoryLock
    recorder: GoodputRecorder

    @property
    def experiment(self) -> Experiment:
        return self.run.experiment

    @property
    def directory(self) -> epath.Path:
        return self.run.directory

    def train(self) -> str | None:
        """Trains up to the last step and returns a sample; None if the run is already finished."""
        latest = self.checkpoints.latest()
        early_stop = read_early_stop(self.directory, self.experiment, latest)
        if latest is not None and (latest >= self.experiment.train.steps or early_stop.is_due):
            self._report_finished(latest, early_stop)
            return None
        if latest is not None:
            for line in run_directory.config_changes(self.directory, self.run.config):
                self.listener.message(f"  configuration changed: {line}")
        model = self.experiment.language_model(self.partition)
        limit, step = checked_limit(self.experiment, model), self.experiment.train_step(model)
        self.listener.starting(self.run, self.partition)
        initial = self._initial(model) if latest is None else None
        setup = RunSetup(
            self.experiment,
            model,
            step,
            self.directory,
            limit,
            resumes=latest is not None,
            initial=None if initial is None else initial.state,
        )
        with self._waiting("opening the data and compiling the step"):
            prepared = prepare(setup, self.recorder, self.listener.message)
        data_manifest.check_same_files(self.experiment.data)
        for note in prepared.data.notes:
            self.listener.message(note)
        fits = explain_mismatch(self.directory, self.run.config, trains=True)
        with self._waiting("restoring the parameters"), fits:
            restored = self.checkpoints.restore(
                model, self.experiment.optimizer, prepared.data.batches
            )
        first, state = restored or (0, prepared.state or setup.new_state())
        if latest is not None:
            self.listener.message(f"Going on from step {first} in {self.directory}")
        # After restoring: a configuration that does not fit the checkpoint is not written.
        facts = {"initial": initial.record} if initial else {}
        self._write_files(prepared.data, facts)
        loop = self._make_loop(setup, prepared, early_stop, first)
        garbage_collection.resume(collect=restored is not None)
        return self._finish(loop, state, prepared.data)

    @contextlib.contextmanager
    def _waiting(self, what: str) -> Iterator[None]:
        with waiting(what, silent=not is_main()), suppress_library_output(self.options.debug):
            yield

    def _initial(self, model: LanguageModel) -> InitialState | None:
        """Reads the checkpoint of another run that this one starts from, if there is one."""
        with self._waiting("reading the initial checkpoint"):
            initial = initial_state(self.run, model)
        if initial is not None:
            self.listener.message(initial.message)
        return initial

    def _report_finished(self, latest: int, early_stop: EarlyStop) -> None:
        """Reports a finished run, and the settings that differ from those it was trained with.

        Raises:
            UserError: if the configuration is that of another model.
        """
        path = self.directory / run_directory.CONFIG_FILE
        current = self.run.config
        changes = compare_configs(path.read_text() if path.exists() else current, current)
        if changes.model:
            more = f"; and {len(changes.model) - 5} more" if len(changes.model) > 5 else ""
            raise UserError(
                f"{self.directory} is a finished run of another configuration: "
                f"{'; '.join(changes.model[:5])}{more}. To train this one, give another "
                "--output_dir; for the figures of the other, use `moe-jax eval`"
            )
        steps, shown = self.experiment.train.steps, "last"
        if self.experiment.checkpoints.best_is or self.experiment.train.patience:
            shown = "best"
        self.listener.message(
            f"Done already: {self.directory} has {latest} steps of {steps}. Its {shown} evaluation:"
        )
        if latest < steps:
            self.listener.message(early_stop.message(latest))
            note_early_stop(self.directory, early_stop, latest)
        for line in changes.other:
            self.listener.message(f"  differs, but not in the model: {line}")

    def _write_files(self, data: OpenData, facts: dict[str, Any]) -> None:
        """Writes the configuration and `run.json`, if this process still holds the lock."""
        self.owner.check()
        if not is_main():
            return
        experiment, before = self.experiment, run_directory.read_record(self.directory)
        run_directory.write_config(self.directory, self.run.config)
        run_directory.write_record(
            self.directory,
            data=data_manifest.write_data_manifest(self.directory, experiment.data),
            vocabulary_digest=data_manifest.vocabulary_digest(experiment.data),
            mesh=mesh_sizes(self.partition),
            environment=jax_environment.followed(),
            parameters=vars(experiment.parameters()),
            train_flops_per_token=experiment.train_flops_per_token(),
            tokens_per_step=experiment.data.batch_size * experiment.data.sequence_length,
            has_padding=has_padding(experiment.data),
            **({"early_stop": None} if "early_stop" in before else {}),
            **facts,
            **vars(data.asked),
        )

    def _make_loop(
        self, setup: RunSetup, prepared: PreparedRun, early_stop: EarlyStop, first: int
    ) -> Loop:
        data, step = prepared.data, setup.step
        if not prepared.is_compiled and setup.limit is not None:
            step = MemoryCheckedStep(step, setup.limit, self.listener.message)
        with propagate_errors():
            instruments = self._make_instruments(first)
        instruments.writer.write_text("config.gin", self.run.config)
        return Loop(
            config=self.experiment.train,
            step=step,
            batches=data.batches,
            evaluate=make_evaluate(self.experiment, setup.model, data),
            checkpoints=self.checkpoints,
            instruments=instruments,
            guard=self.experiment.guard,
            is_compiled=prepared.is_compiled,
            # The figures of another run's checkpoint are those to improve on.
            lacks_evaluation=setup.initial is not None or self._lacks_evaluation(first),
            early_stop=early_stop,
            curriculum=self._make_curriculum(setup.model, data),
            lock=self.owner,
        )

    def _lacks_evaluation(self, first: int) -> bool:
        """Returns True if training was interrupted after step `first`, before its evaluation."""
        if first == 0 or not self.experiment.train.evaluates(first):
            return False
        records = read_metrics(self.directory) if is_main() else []
        done = any(r["kind"] == "eval" and r["step"] == first for r in records)
        return gather("" if done else "missing")[0] != ""

    def _make_instruments(self, first: int) -> Instruments:
        reporter = self.listener.reporter
        settings, limits = self.experiment.train, self.experiment.watchdog
        return Instruments(
            writer=make_writer(self.directory, first, self.experiment.writers, reporter.message),
            reporter=reporter,
            goodput=self.recorder,
            watchdog=Watchdog(
                limits.timeout,
                HangReport(self.directory, jax.process_index(), self.checkpoints.latest),
                pause_seconds=limits.pause_timeout,
            ),
            profiler=Profiler(
                self.directory,
                settings.profile_at or None,
                settings.profile_steps,
                warn=reporter.message,
            ),
            flops_per_token=self.experiment.train_flops_per_token(),
        )

    def _make_curriculum(self, model: LanguageModel, data: OpenData) -> Curriculum | None:
        if data.curriculum is None:
            return None
        from moe_jax.evaluation.complexity import ComplexityScorer, EpochOrderer

        return EpochOrderer(
            ComplexityScorer(model),
            data.curriculum,
            self.experiment.data,
            self.directory / run_directory.CURRICULUM,
        )

    def _finish(self, loop: Loop, state: TrainState, data: OpenData) -> str | None:
        """Runs the loop to its end and returns a sample.

        Raises:
            Interrupted: after a signal, once a checkpoint is saved.
        """
        try:
            state, signal = loop.run(state)
        finally:
            loop.instruments.writer.close()
        if loop.early_stop.is_due and int(state.step) < self.experiment.train.steps:
            note_early_stop(self.directory, loop.early_stop, int(state.step))
        if signal is not None:
            raise Interrupted(
                signal,
                f"Stopped and saved at step {int(state.step)} of {self.experiment.train.steps}. "
                f"To go on, run the same command again:\n  {shlex.join(self.options.command)}",
            )
        with waiting("writing a sample", silent=not is_main()):
            return sample_after_training(
                self.experiment, self.partition, state.variables, data.vocabulary, data.asked
            )


def checked_limit(experiment: Experiment, model: LanguageModel) -> MemoryLimit | None:
    """Returns the memory of the devices; None if it is unknown or the check is disabled.

    Raises:
        UserError: if the training state does not fit into the memory.
    """
    devices = model.partition.local_devices
    limit = find_limit(devices) if experiment.train.check_memory else None
    if limit is not None:
        state = abstract_state(model, experiment.optimizer)
        trained = experiment.optimizer.trained(state.variables.params)
        check_state(state, limit, trained)
    return limit
