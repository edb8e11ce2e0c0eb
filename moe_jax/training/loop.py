"""The training loop: runs steps on batches, logs metrics, evaluates and saves checkpoints."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, Protocol

import jax

from moe_jax.data.batch import Batch
from moe_jax.errors import UserError
from moe_jax.models.functional import Variables
from moe_jax.registration import configurable
from moe_jax.settings import Name, PositiveInt, Seed, Settings, counted, rule
from moe_jax.sharding.processes import DelayedMaximum
from moe_jax.training.checkpointing.best import EarlyStop, Ranking
from moe_jax.training.checkpointing.checkpoint_manager import CheckpointManager
from moe_jax.training.checkpointing.checkpointable import Checkpointable
from moe_jax.training.compiler_options import check as check_compiler_options
from moe_jax.training.error_message import one_line
from moe_jax.training.fault_tolerance.graceful_shutdown import GracefulShutdown
from moe_jax.training.fault_tolerance.preemption import PreemptionNotice
from moe_jax.training.fault_tolerance.watchdog import Watchdog
from moe_jax.training.loss_spike_guard import GuardConfig, SkipReason
from moe_jax.training.metric_writers.interface import MetricWriter
from moe_jax.training.monitoring import hardware
from moe_jax.training.monitoring.goodput_recorder import GoodputRecorder
from moe_jax.training.monitoring.profiling import Profiler
from moe_jax.training.monitoring.progress import Reporter
from moe_jax.training.monitoring.throughput import ThroughputMeter
from moe_jax.training.run_directory.directory_lock import DirectoryLock
from moe_jax.training.skipped_updates import SkipCounter, skip_message
from moe_jax.training.state import TrainState
from moe_jax.training.step import Metrics
from moe_jax.training.task_metrics import task_summary

# From variables to the metrics of an evaluation, by name.
EvaluateFn = Callable[[Variables], Mapping[str, float]]


class CheckpointableIterator(Iterator[Batch], Checkpointable, Protocol):
    """An iterator over batches whose position can be saved and restored."""


class Curriculum(Protocol):
    """Orders the training examples of each epoch by the state of the model."""

    @property
    def needs_order(self) -> bool:
        """True if `start_epoch` has to be called before the next batch."""

    def start_epoch(self, variables: Variables) -> str:
        """Orders the epoch by the model's current variables; returns a message to display."""


@configurable
@dataclasses.dataclass(frozen=True)
class TrainConfig(Settings, called="Train"):
    """Number of training steps, and intervals of logging, evaluation and profiling.

    Attributes:
        steps: total number of training steps.
        seed: seed of the initial parameters and of the routers' random draws (jitter, gating noise,
            random experts), which also depend on the step. The training data are shuffled by a
            seed of their own, `Data.seed`.
        accumulation: number of micro-batches that a batch is split into.
        frozen: patterns of the names of parameters that keep their initial values, such as
            `('attention', 'embedding')`, or groups: `('experts',)`, `('all_but_experts',)`,
            `('router',)`, `('all_but_router',)` (`moe_jax.training.frozen`). They have no
            gradient, weight decay or optimiser state, and do not count in the gradient norm.
            Router state such as thresholds is no parameter and is updated as always.
        log_every: steps between records in `metrics.jsonl` and TensorBoard.
        patience: number of evaluations in a row without a new best (`Checkpoints.best_is`) after
            which training ends; 0 to train for all steps. The best checkpoint has to be kept
            (`Checkpoints.keep_best`).
        eval_every: steps between evaluations; 0 to evaluate only at the end.
        profile_at: first step of a profiler trace in RUN/traces; 0 for no trace. During training,
            `echo 5 > RUN/profile` requests a trace of the next 5 steps.
        profile_steps: number of steps to trace.
        check_memory: refuse to train if the training state does not fit the devices' memory.
        compiler_options: XLA options for compiling the training step on TPU; ignored on other
            platforms, which do not know them.
    """

    steps: PositiveInt
    seed: Seed = 0
    accumulation: PositiveInt = 1
    frozen: tuple[Name, ...] = ()
    log_every: PositiveInt = 10
    eval_every: Annotated[int, counted("only at the end")] = 1000
    patience: Annotated[int, counted("no early stop")] = 0
    profile_at: Annotated[int, counted("no trace")] = 0
    profile_steps: PositiveInt = 3
    check_memory: bool = True
    compiler_options: Mapping[Name, bool | int | float | str] = dataclasses.field(
        default_factory=dict
    )

    def evaluates(self, step: int) -> bool:
        """Returns True if an evaluation is due after a step; the first step is 1."""
        every = self.eval_every
        return step == self.steps or (every > 0 and step % every == 0)

    @staticmethod
    @rule
    def _there_is_something_to_profile(steps: int, profile_at: int) -> None:
        if profile_at > steps:
            raise UserError(
                f"Train.profile_at = {profile_at} is after the last step, Train.steps = {steps}"
            )

    @staticmethod
    @rule
    def _there_is_something_to_wait_for(eval_every: int, patience: int) -> None:
        if patience and not eval_every:
            raise UserError(
                f"Train.patience = {patience} counts evaluations: set Train.eval_every above 0"
            )

    @staticmethod
    @rule
    def _compiler_options_are_harmless(
        compiler_options: Mapping[str, bool | int | float | str],
    ) -> None:
        check_compiler_options(compiler_options)


@dataclasses.dataclass
class Instruments:
    """Everything that observes a run; it does not affect the computed values.

    Attributes:
        writer: writes metrics.
        reporter: displays progress.
        goodput: records the wall time by activity.
        watchdog: ends the process if it hangs.
        profiler: traces steps.
        flops_per_token: FLOPs of a training step per token, for the utilisation.
    """

    writer: MetricWriter
    reporter: Reporter
    goodput: GoodputRecorder
    watchdog: Watchdog
    profiler: Profiler
    flops_per_token: float

    @contextlib.contextmanager
    def activity(self, name: str) -> Iterator[None]:
        """Records and displays an activity other than steps, which may take longer than a step."""
        with self.goodput.measure(name), self.watchdog.paused(name), self.reporter.activity(name):
            yield


@dataclasses.dataclass
class Loop:
    """The training loop and everything it works with.

    Attributes:
        config: number of steps and intervals.
        step: the jitted training step.
        batches: the training data.
        evaluate: computes metrics on held-out data, always with `loss` and `causal_loss`.
        checkpoints: saves the state.
        instruments: observers of the run.
        guard: limit of consecutive skipped updates that ends training.
        curriculum: orders the epochs of `batches`, if their order depends on the model.
        is_compiled: True if `step` is already compiled for the shapes of `batches`.
        lacks_evaluation: True if the evaluation due at the state's step was not made, because
            training was interrupted there, or starts from another run; it is made first.
        early_stop: counts evaluations without improvement, and ends training.
        lock: the lock on the run directory; training stops if it is lost.
    """

    config: TrainConfig
    step: Callable[[TrainState, Batch], tuple[TrainState, Metrics]]
    batches: CheckpointableIterator
    evaluate: EvaluateFn
    checkpoints: CheckpointManager
    instruments: Instruments
    guard: GuardConfig = dataclasses.field(default_factory=GuardConfig)
    curriculum: Curriculum | None = None
    is_compiled: bool = False
    lacks_evaluation: bool = False
    early_stop: EarlyStop = dataclasses.field(default_factory=lambda: EarlyStop(Ranking.of("")))
    lock: DirectoryLock | None = None

    def run(self, state: TrainState) -> tuple[TrainState, int | None]:
        """Trains from the step of the state to the last step, an early stop, or an interruption.

        A state that has all its steps is returned unchanged.

        Returns:
            the final state, and the number of the signal that interrupted training or None.

        Raises:
            UserError: if reading the data fails, too many updates in a row are skipped, too many
                saves fail, or another process has taken over the run directory.
        """
        first, steps = int(state.step), self.config.steps
        instruments = self.instruments
        self._throughput, self._skips = ThroughputMeter(), SkipCounter(self.guard.limit)
        self._pending: tuple[int, Metrics] | None = None
        instruments.reporter.start(first, steps)
        instruments.goodput.begin(first)
        stopped, diverged = 0, False
        signals = DelayedMaximum()
        with (
            GracefulShutdown() as shutdown,
            instruments.watchdog,
            PreemptionNotice(shutdown.request),
        ):
            if self.lock is not None:
                self.lock.on_lost(shutdown.request)
            try:
                if self.lacks_evaluation:
                    with instruments.activity("evaluation"):
                        self._evaluate(first, state.variables)
                for done in range(first + 1, steps + 1):
                    if self.early_stop.is_due:
                        break
                    state, diverged = self._step(done, state, number=done - first)
                    # All processes stop after the same step, whichever received the signal.
                    stopped = signals.update(shutdown.signal or 0)
                    self._after(done, state, stopping=stopped > 0 or diverged)
                    if stopped or diverged:
                        break
            finally:
                instruments.reporter.stop()
                instruments.profiler.close()
            with instruments.activity("checkpoint"):
                self._check_saved(int(state.step))
        if self.early_stop.is_due and int(state.step) < steps:
            instruments.reporter.message(self.early_stop.message(int(state.step)))
        if shutdown.reason:
            instruments.reporter.message(shutdown.reason)
        if diverged:
            raise UserError(self._skips.stop_message(int(state.step)))
        instruments.goodput.close(int(state.step))
        is_finished = int(state.step) >= steps or self.early_stop.is_due
        return state, stopped if stopped and not is_finished else None

    def _step(self, done: int, state: TrainState, number: int) -> tuple[TrainState, bool]:
        """Runs a step, the `number`th of this attempt.

        Returns:
            the new state, and True if too many updates in a row were skipped.
        """
        instruments, is_first = self.instruments, number == 1
        batch = self._next_batch(state.variables)
        instruments.profiler.before(done)
        compiles = is_first and not self.is_compiled
        with instruments.activity("compile") if compiles else instruments.goodput.measure("step"):
            state, metrics = self.step(state, batch)
            # Logs the previous step: fetching the metrics of this one would block until it is done.
            diverged = self._log()
            self._pending = (done, metrics)
            if is_first:
                diverged |= self._log()
        if number == 2:
            with instruments.activity("compile"):
                # Compiled on the host while the devices compute.
                self.checkpoints.prepare(state)
        instruments.profiler.after(done, metrics)
        instruments.watchdog.beat()
        return state, diverged

    def _after(self, done: int, state: TrainState, stopping: bool) -> None:
        """Evaluates and saves, if due."""
        instruments, last = self.instruments, stopping or done == self.config.steps
        metrics = None
        if last or self.config.evaluates(done) or self.checkpoints.is_due(done):
            # The metrics of a step are written before its checkpoint.
            with instruments.goodput.measure("step"):
                self._log()
        # An evaluation left out here is made when training goes on, which it does not at the end.
        if self.config.evaluates(done) and (not stopping or done == self.config.steps):
            with instruments.activity("evaluation"):
                metrics = self._evaluate(done, state.variables)
            last |= self.early_stop.is_due
        with instruments.activity("checkpoint"):
            self.checkpoints.save(done, state, self.batches, last, metrics)
        if last or done % self.config.log_every == 0:
            instruments.goodput.record(done)

    def _next_batch(self, variables: Variables) -> Batch:
        instruments = self.instruments
        if self.curriculum is not None and self.curriculum.needs_order:
            with self._throughput.paused(), instruments.activity("curriculum"):
                instruments.reporter.message(self.curriculum.start_epoch(variables))
        try:
            with instruments.goodput.measure("data"), instruments.reporter.activity("data"):
                return next(self.batches)
        except (UserError, KeyboardInterrupt):
            raise
        except BaseException as error:
            latest = self.checkpoints.latest()
            kept = "nothing was saved before" if latest is None else f"step {latest} is saved"
            raise UserError(
                f"the data failed ({type(error).__name__}: {one_line(error, 200)}); "
                f"{kept}: run the same command again to go on"
            ) from error

    def _log(self) -> bool:
        """Waits for the pending step and displays it; writes its metrics if due.

        Returns:
            True if so many updates in a row were skipped that training has to stop.
        """
        if self._pending is None:
            return False
        (done, on_device), self._pending, instruments = self._pending, None, self.instruments
        names = [
            "loss",
            "gradient_norm",
            "tokens",
            "skip_reason",
            "skipped_in_row",
            "skipped_total",
        ]
        loss, norm, tokens, reason, in_row, skipped = jax.device_get([on_device[n] for n in names])
        rate = self._throughput.update(float(tokens))
        instruments.reporter.update(done, float(loss), rate)
        self._skips.add(SkipReason(int(reason)), int(in_row))
        if in_row:
            values = float(loss), float(norm), int(in_row), int(skipped)
            instruments.reporter.message(skip_message(done, SkipReason(int(reason)), *values))
        if done % self.config.log_every == 0 or done == self.config.steps or in_row:
            metrics: dict[str, Any] = jax.device_get(on_device)
            instruments.writer.write(done, "train", {**metrics, **self._performance(rate)})
        return self._skips.too_many

    def _performance(self, rate: float) -> dict[str, float]:
        """Returns metrics of throughput, utilisation and memory; FLOPs as in `moe_jax.flops`."""
        flops = rate * self.instruments.flops_per_token
        metrics = {
            "tokens_per_second": rate,
            "flops_per_second": flops,
            **hardware.memory_metrics(),
        }
        peak = hardware.peak_flops(jax.devices()[0].device_kind)
        share = hardware.utilisation(flops, jax.device_count(), peak)
        return metrics if share is None else {**metrics, "utilisation": share}

    def _evaluate(self, done: int, variables: Variables) -> Mapping[str, float]:
        with self._throughput.paused():
            metrics = self.evaluate(variables)
        self.instruments.writer.write(done, "eval", metrics)
        self.instruments.reporter.message(
            f"step {done}: held-out bits per byte {metrics['bits_per_byte']:.3f} routed as "
            f"trained, {metrics['causal_bits_per_byte']:.3f} causal "
            f"(loss {metrics['loss']:.3f}, {metrics['causal_loss']:.3f})" + task_summary(metrics)
        )
        self.early_stop.add(done, metrics)
        return metrics

    def _check_saved(self, step: int) -> None:
        """Waits for the last save to complete.

        Raises:
            UserError: if the checkpoint of `step` is not on disk.
        """
        self.checkpoints.wait()
        if self.checkpoints.latest() != step:
            raise UserError(
                f"the last checkpoint, of step {step}, could not be written; the latest is that of "
                f"step {self.checkpoints.latest()}. Run the same command again to go on from it"
            )
