"""Searches for the fastest way to run a model on a topology, by the compiler's own figures."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

from moe_jax.config_source import ConfigSource
from moe_jax.errors import UserError
from moe_jax.experiment import Experiment, load
from moe_jax.pods.answer import Answer, read_answer
from moe_jax.pods.compiler import Job, Say, compile_step, say_nothing
from moe_jax.pods.lowering import argument_bytes
from moe_jax.pods.variants import (
    Variant,
    dispatch_variants,
    mesh_variants,
    option_variants,
    remat_variants,
)

AS_CONFIGURED = "as configured"


@dataclasses.dataclass(frozen=True)
class Trial:
    """One way to run, and what became of it.

    Attributes:
        name: of everything that differs from the configuration.
        bindings: gin bindings over the configuration's.
        answer: what the compiler says; None if it was refused or not asked.
        error: why it was refused.
        files: gin files over the configuration's.
        least_bytes: if parameters, optimiser state and batch alone are more than a device holds:
            their bytes a device. The compiler was not asked then.
    """

    name: str
    bindings: tuple[str, ...]
    answer: Answer | None
    error: str = ""
    files: tuple[str, ...] = ()
    least_bytes: int = 0

    @property
    def fits(self) -> bool:
        """Whether it can run."""
        return self.answer is not None and self.answer.fits

    @property
    def seconds(self) -> float:
        """A step's, at the faster end of the bracket; infinite if it does not fit."""
        if self.answer is None or self.answer.fastest is None or not self.fits:
            return float("inf")
        return self.answer.fastest.seconds


class Watch:
    """What sees a search go on; this one looks away."""

    def trying(self, what: str) -> AbstractContextManager[Say]:
        """Is entered while something is tried; what it gives is told what is being done."""
        return contextlib.nullcontext(say_nothing)

    def tried(self, trial: Trial) -> None:
        """Is called with every trial."""


def answer(job: Job, say: Say = say_nothing) -> Answer:
    """Compiles a job and reads what the compiler says.

    Args:
        job: what to compile.
        say: told what is being done.

    Raises:
        UserError: for a mistake in the configuration, or if the compiler fails.
    """
    compiled = compile_step(job, say)
    say("reading the program")
    return read_answer(load_job(job), job.topology, compiled)


def load_job(job: Job) -> Experiment:
    """Returns what a job's gin files describe.

    Raises:
        UserError: for a mistake in them.
    """
    return load(ConfigSource(tuple(job.files), tuple(job.bindings), tuple(job.search_paths)))


def least_bytes(job: Job) -> dict[str, int]:
    """Returns bytes a device of parameters, optimiser state and batch, without the compiler.

    Raises:
        UserError: for a mistake in the configuration, or if mesh or batch do not fit the devices.
    """
    return argument_bytes(load_job(job), job.topology.device_count)


def sweep(job: Job, watch: Watch) -> list[Trial]:
    """Tries one kind of change after the other, each on the best of the kinds before.

    First meshes, then rematerialisation, the compiler's options, and who arranges the dispatch: a
    search along axes, not of all combinations.

    Args:
        job: the configuration.
        watch: sees it go on.

    Returns:
        all trials, ranked.
    """
    described = load_job(job)
    best = Trial(AS_CONFIGURED, (), None)
    best = try_variant(job, Variant(AS_CONFIGURED, ()), best, watch)
    trials = [best]
    for kind, variants in _kinds(described, job):
        # What does not fit is tried with what the best keeps of a step, not more.
        of_kind = [
            try_variant(
                job, variant, best, watch, f"{kind} {number} of {len(variants)}: ", kind == "mesh"
            )
            for number, variant in enumerate(variants, 1)
        ]
        trials += of_kind
        best = min([best, *of_kind], key=lambda trial: trial.seconds)
    return ranked(trials)


def ranked(trials: list[Trial]) -> list[Trial]:
    """Returns those that fit, the fastest first; those that do not; what was refused."""
    return sorted(
        trials, key=lambda trial: (trial.seconds, trial.answer is None, trial.error != "")
    )


def _kinds(described: Experiment, job: Job) -> Iterator[tuple[str, list[Variant]]]:
    yield "mesh", mesh_variants(described, job.topology)
    yield "rematerialisation", remat_variants()
    yield "options", option_variants(job.topology)
    yield "dispatch", dispatch_variants(described)


def try_variant(
    job: Job,
    variant: Variant,
    base: Trial,
    watch: Watch,
    prefix: str = "",
    checks: bool = False,
) -> Trial:
    """Compiles a variant over what was found before.

    Args:
        job: the configuration.
        variant: over it, and over `base`.
        base: what was found before.
        watch: sees it go on.
        prefix: of the variant's name, for `watch`.
        checks: whether the compiler is not asked where the state alone is too large.
    """
    names = [part for part in (base.name, variant.name) if part != AS_CONFIGURED]
    trial = Trial(
        "; ".join(names) or AS_CONFIGURED,
        (*base.bindings, *variant.bindings),
        None,
        files=(*base.files, *variant.files),
    )
    with watch.trying(prefix + variant.name) as say:
        trial = _asked(changed(job, trial), trial, say, checks)
    watch.tried(trial)
    return trial


def changed(job: Job, trial: Trial) -> Job:
    """Returns a job with what a trial changes of it."""
    return dataclasses.replace(
        job, files=(*job.files, *trial.files), bindings=(*job.bindings, *trial.bindings)
    )


def _asked(job: Job, trial: Trial, say: Callable[[str], None], checks: bool) -> Trial:
    try:
        if checks:
            least = sum(least_bytes(job).values())
            if least > job.topology.chip.hbm_limit_per_device:
                return dataclasses.replace(trial, least_bytes=least)
        return dataclasses.replace(trial, answer=answer(job, say))
    except UserError as error:
        return dataclasses.replace(trial, error=str(error))
