"""The training loop: batches in, steps done, metrics, evaluations and checkpoints out."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import jax

from moe_jax.data.batch import Batch
from moe_jax.errors import UserError
from moe_jax.models.functional import Variables
from moe_jax.sharding.processes import Agreement
from moe_jax.training.checkpoints import Checkpoints, Position
from moe_jax.training.guard import GuardConfig
from moe_jax.training.interrupt import Interrupt
from moe_jax.training.pace import Pace
from moe_jax.training.progress import Reporter
from moe_jax.training.state import TrainState
from moe_jax.training.step import Metrics
from moe_jax.training.writers import Writer

# From the variables to the figures of an evaluation, by name.
EvaluateFn = Callable[[Variables], Mapping[str, float]]


class Stream(Iterator[Batch], Position, Protocol):
    """Batches that can be saved and restored where they are."""


class Curriculum(Protocol):
    """Gives epochs an order that depends on the model."""

    @property
    def needs_order(self) -> bool:
        """Whether `begin` has to be called before the next batch."""

    def begin(self, variables: Variables) -> str:
        """Orders the epoch with the model as it is; returns a line to show."""


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """How long to train and how often to look.

    Attributes:
        steps: steps in all.
        seed: of the initial parameters.
        accumulation: micro-batches that a batch is worked on in.
        log_every: steps between records in `metrics.jsonl` and TensorBoard.
        eval_every: steps between evaluations; 0 for only at the end.
    """

    steps: int
    seed: int = 0
    accumulation: int = 1
    log_every: int = 10
    eval_every: int = 1000

    def __post_init__(self) -> None:
        for name in ("steps", "accumulation", "log_every"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise UserError(f"Train.{name} must be a whole number above 0, not {value!r}")
        if self.eval_every < 0:
            raise UserError("Train.eval_every must be 0 (only at the end) or more")


@dataclasses.dataclass
class Loop:
    """Everything the loop works with.

    Attributes:
        config: how long and how often.
        step: the compiled training step.
        batches: the training data.
        evaluate: held-out figures; always includes `loss` and `causal_loss`.
        checkpoints: where the state is saved.
        writer: where metrics go.
        reporter: what a person sees.
        flops_per_token: of a training step, for the utilisation in the log.
        guard: how many updates skipped in a row end training.
        curriculum: orders the epochs of `batches`, if their order depends on the model.
    """

    config: TrainConfig
    step: Callable[[TrainState, Batch], tuple[TrainState, Metrics]]
    batches: Stream
    evaluate: EvaluateFn
    checkpoints: Checkpoints
    writer: Writer
    reporter: Reporter
    flops_per_token: float
    guard: GuardConfig = dataclasses.field(default_factory=GuardConfig)
    curriculum: Curriculum | None = None

    def run(self, state: TrainState) -> tuple[TrainState, int | None]:
        """Trains from the state's step to the last, or to an interrupt.

        Returns:
            the final state and the signal that interrupted, or None.
        """
        first, steps = int(state.step), self.config.steps
        self._pace = Pace()
        self.reporter.start(first, steps)
        pending: tuple[int, Metrics] | None = None
        agreement, stopped = Agreement(), 0
        with Interrupt() as interrupt:
            try:
                for done in range(first + 1, steps + 1):
                    state, metrics = self.step(state, self._next_batch(state.variables))
                    # The record of the step before: fetching this one's would wait for it.
                    if self._log(pending):
                        self.checkpoints.save(done, state, self.batches, last=True)
                        self._stop_diverged(done)
                    pending = (done, metrics)
                    # Of several processes all stop after the same step, whoever got the signal.
                    stopped = agreement.ask(interrupt.signal or 0)
                    stopping = stopped > 0
                    if self._evaluates(done, stopping) or stopping or done == steps:
                        self._log(pending)
                        pending = None
                    figures = None
                    if self._evaluates(done, stopping):
                        figures = self._evaluate(done, state.variables)
                    self.checkpoints.save(
                        done, state, self.batches, stopping or done == steps, figures
                    )
                    if stopping:
                        break
            finally:
                self.reporter.stop()
            self._check_saved(int(state.step))
        return state, stopped if stopped and int(state.step) < steps else None

    def _next_batch(self, variables: Variables) -> Batch:
        if self.curriculum is not None and self.curriculum.needs_order:
            with self._pace.paused():
                self.reporter.message(self.curriculum.begin(variables))
        try:
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

    def _evaluates(self, done: int, stopping: bool) -> bool:
        every = self.config.eval_every
        return not stopping and (done == self.config.steps or (every > 0 and done % every == 0))

    def _log(self, pending: tuple[int, Metrics] | None) -> bool:
        """Waits for a step and shows it; writes it if it is its turn.

        Returns whether so many updates in a row were skipped that training has to stop.
        """
        if pending is None:
            return False
        done, on_device = pending
        names = ("loss", "tokens", "skipped", "skipped_in_row")
        loss, tokens, skipped, in_row = jax.device_get([on_device[name] for name in names])
        rate = self._pace.add(float(tokens))
        self.reporter.update(done, float(loss), rate)
        if in_row:
            self.reporter.message(
                f"step {done}: no update, for the loss ({float(loss):.4g}) or its gradient is not "
                f"finite or a spike ({int(in_row)} in a row, {int(skipped)} in all)"
            )
        if done % self.config.log_every == 0 or done == self.config.steps:
            metrics: dict[str, Any] = jax.device_get(on_device)
            metrics["tokens_per_second"] = rate
            metrics["flops_per_second"] = rate * self.flops_per_token
            self.writer.write(done, "train", metrics)
        return 0 < self.guard.limit <= in_row

    def _stop_diverged(self, step: int) -> None:
        """Ends training after too many skipped updates, with everything saved."""
        self.checkpoints.wait()
        raise UserError(
            f"training stopped at step {step}: {self.guard.limit} updates in a row were skipped "
            "(Guard.limit), because the loss or its gradient was not finite or a spike. The "
            "parameters from before are saved; try a lower learning rate, or other data"
        )

    def _evaluate(self, done: int, variables: Variables) -> Mapping[str, float]:
        with self._pace.paused():
            figures = self.evaluate(variables)
        self.writer.write(done, "eval", figures)
        self.reporter.message(
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
