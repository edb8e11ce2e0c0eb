"""The training loop: batches in, steps done, metrics, evaluations and checkpoints out."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, Protocol

import jax

from moe_jax.data.batch import Batch
from moe_jax.errors import UserError
from moe_jax.models.functional import Variables
from moe_jax.settings import Name, PositiveInt, Seed, Settings, counted, rule
from moe_jax.sharding.processes import DelayedMaximum
from moe_jax.training.checkpointing.checkpoint_manager import CheckpointManager
from moe_jax.training.checkpointing.checkpointable import Checkpointable
from moe_jax.training.compiler_options import check as check_compiler_options
from moe_jax.training.fault_tolerance.graceful_shutdown import GracefulShutdown
from moe_jax.training.fault_tolerance.preemption import PreemptionNotice
from moe_jax.training.fault_tolerance.watchdog import Watchdog
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
from moe_jax.training.update_guard import GuardConfig, SkipReason

# From the variables to the figures of an evaluation, by name.
EvaluateFn = Callable[[Variables], Mapping[str, float]]


class CheckpointableIterator(Iterator[Batch], Checkpointable, Protocol):
    """Batches that can be saved and restored where they are."""


class Curriculum(Protocol):
    """Gives epochs an order that depends on the model."""

    @property
    def needs_order(self) -> bool:
        """Whether `begin` has to be called before the next batch."""

    def begin(self, variables: Variables) -> str:
        """Orders the epoch with the model as it is; returns a line to show."""


@dataclasses.dataclass(frozen=True)
class TrainConfig(Settings, called="Train"):
    """How long to train and how often to look.

    Attributes:
        steps: steps in all.
        seed: of the initial parameters.
        accumulation: micro-batches that a batch is worked on in.
        log_every: steps between records in `metrics.jsonl` and TensorBoard.
        eval_every: steps between evaluations; 0 for only at the end.
        profile_at: the first step of a trace in RUN/traces; 0 for none. While a run goes,
            `echo 5 > RUN/profile` asks for one of the next 5 steps.
        profile_steps: steps of the trace.
        check_memory: refuse to train what does not fit the devices' memory, before it is allocated.
        compiler_options: of the TPU's compiler, for the training step; other platforms, which do
            not know them, compile without.
    """

    steps: PositiveInt
    seed: Seed = 0
    accumulation: PositiveInt = 1
    log_every: PositiveInt = 10
    eval_every: Annotated[int, counted("only at the end")] = 1000
    profile_at: Annotated[int, counted("no trace")] = 0
    profile_steps: PositiveInt = 3
    check_memory: bool = True
    compiler_options: Mapping[Name, bool | int | float | str] = dataclasses.field(
        default_factory=dict
    )

    @staticmethod
    @rule
    def _there_is_something_to_profile(steps: int, profile_at: int) -> None:
        if profile_at > steps:
            raise UserError(
                f"Train.profile_at = {profile_at} is after the last step, Train.steps = {steps}"
            )

    @staticmethod
    @rule
    def _compiler_options_are_harmless(
        compiler_options: Mapping[str, bool | int | float | str],
    ) -> None:
        check_compiler_options(compiler_options)


@dataclasses.dataclass
class Instruments:
    """What looks at a run and says what it sees; nothing here changes a number.

    Attributes:
        writer: where metrics go.
        reporter: what a person sees.
        account: where the time goes.
        watchdog: ends the process when it hangs.
        profiler: traces of steps.
        flops_per_token: of a training step, for the utilisation in the log.
    """

    writer: MetricWriter
    reporter: Reporter
    account: GoodputRecorder
    watchdog: Watchdog
    profiler: Profiler
    flops_per_token: float

    @contextlib.contextmanager
    def doing(self, what: str) -> Iterator[None]:
        """Accounts for something that is no step, which may take longer than one."""
        with self.account.spent(what), self.watchdog.paused(what), self.reporter.doing(what):
            yield


@dataclasses.dataclass
class Loop:
    """Everything the loop works with.

    Attributes:
        config: how long and how often.
        step: the compiled training step.
        batches: the training data.
        evaluate: held-out figures; always includes `loss` and `causal_loss`.
        checkpoints: where the state is saved.
        instruments: what looks at it.
        guard: how many updates skipped in a row end training.
        curriculum: orders the epochs of `batches`, if their order depends on the model.
        is_compiled: whether `step` has been compiled for the batches that are to come.
        owner: stops training when the run directory is another's.
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
    owner: DirectoryLock | None = None

    def run(self, state: TrainState) -> tuple[TrainState, int | None]:
        """Trains from the state's step to the last, or to an interrupt.

        Returns:
            the final state and the signal that interrupted, or None.

        Raises:
            UserError: if the data fail, too many updates in a row are skipped, too many saves
                fail, or another took the run directory over.
        """
        first, steps = int(state.step), self.config.steps
        see, self._pace, self._skips = (
            self.instruments,
            ThroughputMeter(),
            SkipCounter(self.guard.limit),
        )
        self._pending: tuple[int, Metrics] | None = None
        see.reporter.start(first, steps)
        see.account.begin(first)
        stopped = 0
        agreement = DelayedMaximum()
        with GracefulShutdown() as interrupt, see.watchdog, PreemptionNotice(interrupt.notice):
            if self.owner is not None:
                self.owner.tell(interrupt.notice)
            try:
                for done in range(first + 1, steps + 1):
                    state, diverged = self._step(done, state, number=done - first)
                    # Of several processes all stop after the same step, whoever got the signal.
                    stopped = agreement.ask(interrupt.signal or 0)
                    self._after(done, state, stopping=stopped > 0 or diverged)
                    if stopped or diverged:
                        break
            finally:
                see.reporter.stop()
                see.profiler.close()
            with see.doing("checkpoint"):
                self._check_saved(int(state.step))
        if interrupt.reason:
            see.reporter.message(interrupt.reason)
        if diverged:
            raise UserError(self._skips.end(int(state.step)))
        see.account.close(int(state.step))
        return state, stopped if stopped and int(state.step) < steps else None

    def _step(self, done: int, state: TrainState, number: int) -> tuple[TrainState, bool]:
        """Runs a step, the `number`th of this attempt.

        Returns the state and whether too many updates in a row were skipped.
        """
        see, is_first = self.instruments, number == 1
        batch = self._next_batch(state.variables)
        see.profiler.before(done)
        compiles = is_first and not self.is_compiled
        with see.doing("compile") if compiles else see.account.spent("step"):
            state, metrics = self.step(state, batch)
            # The record of the step before: fetching this one's would wait for it.
            diverged = self._log()
            self._pending = (done, metrics)
            if is_first:
                diverged |= self._log()
        if number == 2:
            with see.doing("compile"):
                # While the devices work.
                self.checkpoints.prepare(state)
        see.profiler.after(done, metrics)
        see.watchdog.beat()
        return state, diverged

    def _after(self, done: int, state: TrainState, stopping: bool) -> None:
        """Evaluates and saves, if it is time."""
        see, last = self.instruments, stopping or done == self.config.steps
        figures = None
        if last or self._evaluates(done) or self.checkpoints.is_due(done):
            # A step is on record before it is saved.
            with see.account.spent("step"):
                self._log()
        if self._evaluates(done) and not stopping:
            with see.doing("evaluation"):
                figures = self._evaluate(done, state.variables)
        with see.doing("checkpoint"):
            self.checkpoints.save(done, state, self.batches, last, figures)
        if last or done % self.config.log_every == 0:
            see.account.record(done)

    def _next_batch(self, variables: Variables) -> Batch:
        see = self.instruments
        if self.curriculum is not None and self.curriculum.needs_order:
            with self._pace.paused(), see.doing("curriculum"):
                see.reporter.message(self.curriculum.begin(variables))
        try:
            with see.account.spent("data"), see.reporter.doing("data"):
                return next(self.batches)
        except (UserError, KeyboardInterrupt):
            raise
        except BaseException as error:
            latest = self.checkpoints.latest()
            kept = "nothing was saved before" if latest is None else f"step {latest} is saved"
            raise UserError(
                f"the data failed ({type(error).__name__}: {' '.join(str(error).split())[:200]}); "
                f"{kept}: run the same command again to go on"
            ) from error

    def _evaluates(self, done: int) -> bool:
        every = self.config.eval_every
        return done == self.config.steps or (every > 0 and done % every == 0)

    def _log(self) -> bool:
        """Waits for the pending step and shows it; writes it if it is its turn.

        Returns whether so many updates in a row were skipped that training has to stop.
        """
        if self._pending is None:
            return False
        (done, on_device), self._pending, see = self._pending, None, self.instruments
        names = [
            "loss",
            "gradient_norm",
            "tokens",
            "skip_reason",
            "skipped_in_row",
            "skipped_total",
        ]
        loss, norm, tokens, reason, in_row, skipped = jax.device_get([on_device[n] for n in names])
        rate = self._pace.add(float(tokens))
        see.reporter.update(done, float(loss), rate)
        self._skips.add(SkipReason(int(reason)), int(in_row))
        if in_row:
            figures = float(loss), float(norm), int(in_row), int(skipped)
            see.reporter.message(skip_message(done, SkipReason(int(reason)), *figures))
        if done % self.config.log_every == 0 or done == self.config.steps or in_row:
            metrics: dict[str, Any] = jax.device_get(on_device)
            see.writer.write(done, "train", {**metrics, **self._speed(rate)})
        return self._skips.too_many

    def _speed(self, rate: float) -> dict[str, float]:
        """Returns the metrics of speed and memory; the rule of counting is `moe_jax.flops`."""
        flops = rate * self.instruments.flops_per_token
        found = {"tokens_per_second": rate, "flops_per_second": flops, **hardware.memory()}
        peak = hardware.peak_flops(jax.devices()[0].device_kind)
        share = hardware.utilisation(flops, jax.device_count(), peak)
        return found if share is None else {**found, "utilisation": share}

    def _evaluate(self, done: int, variables: Variables) -> Mapping[str, float]:
        with self._pace.paused():
            figures = self.evaluate(variables)
        self.instruments.writer.write(done, "eval", figures)
        self.instruments.reporter.message(
            f"step {done}: held-out bits per byte {figures['bits_per_byte']:.3f} routed as "
            f"trained, {figures['causal_bits_per_byte']:.3f} causal "
            f"(loss {figures['loss']:.3f}, {figures['causal_loss']:.3f})"
        )
        return figures

    def _check_saved(self, step: int) -> None:
        """Makes sure that the last save is on disk.

        Raises:
            UserError: if it is not.
        """
        self.checkpoints.wait()
        if self.checkpoints.latest() != step:
            raise UserError(
                f"the last checkpoint, of step {step}, could not be written; the latest is that of "
                f"step {self.checkpoints.latest()}. Run the same command again to go on from it"
            )
