"""Searches for the fastest way to run a model on a topology, by the compiler's own figures."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator

from moe_jax.errors import UserError
from moe_jax.experiment import Experiment, load
from moe_jax.pods.answer import Answer, read_answer
from moe_jax.pods.compiler import Job, compile_step
from moe_jax.pods.variants import (
    Variant,
    dispatch_variants,
    mesh_variants,
    option_variants,
    remat_variants,
    smaller_variants,
)


@dataclasses.dataclass(frozen=True)
class Trial:
    """One way to run, and what became of it.

    Attributes:
        name: of everything that differs from the configuration.
        bindings: gin bindings over the configuration's.
        answer: what the compiler says; None if it was refused.
        error: why it was refused.
    """

    name: str
    bindings: tuple[str, ...]
    answer: Answer | None
    error: str = ""

    @property
    def seconds(self) -> float:
        """A step's, at the faster end of the bracket; infinite if it does not fit."""
        fits = self.answer is not None and self.answer.fits
        return self.answer.fastest.seconds if self.answer and fits else float("inf")


def answer(job: Job) -> Answer:
    """Compiles a job and reads what the compiler says.

    Raises:
        UserError: for a mistake in the configuration, or if the compiler fails.
    """
    compiled = compile_step(job)
    described = load(list(job.files), list(job.bindings), list(job.search_paths))
    return read_answer(described, job.topology, compiled)


def sweep(job: Job, report: Callable[[Trial], None]) -> list[Trial]:
    """Tries one kind of change after the other, each on the best of the kinds before.

    First meshes, then rematerialisation, the compiler's options, and who arranges the dispatch: a
    search along axes, not of all combinations.

    Args:
        job: the configuration.
        report: called with every trial.

    Returns:
        all trials: those that fit, the fastest first; those that do not; what was refused.
    """
    described = load(list(job.files), list(job.bindings), list(job.search_paths))
    best = _try(job, Variant("as configured", ()), ())
    report(best)
    trials = [best]
    for kind in _kinds(described, job):
        of_kind = []
        for variant in kind:
            # What does not fit is tried with what the best keeps of a step, not more.
            of_kind.append(_try(job, variant, best.bindings, best.name))
            report(of_kind[-1])
        trials += of_kind
        best = min([best, *of_kind], key=lambda trial: trial.seconds)
    return sorted(trials, key=lambda trial: (trial.seconds, trial.answer is None))


def _kinds(described: Experiment, job: Job) -> Iterator[Iterable[Variant]]:
    yield mesh_variants(described, job.topology)
    yield remat_variants()
    yield option_variants(job.topology)
    yield dispatch_variants(described)


def nearest_fit(job: Job, report: Callable[[Trial], None]) -> Trial | None:
    """Returns the first of the smaller ways to run that fits, None if none does."""
    described = load(list(job.files), list(job.bindings), list(job.search_paths))
    for variant in smaller_variants(described, job.topology):
        trial = _try(job, variant, ())
        report(trial)
        if trial.answer is not None and trial.answer.fits:
            return trial
    return None


def _try(job: Job, variant: Variant, base: tuple[str, ...], name: str = "") -> Trial:
    """Compiles a variant over what was found before."""
    names = [part for part in (name, variant.name) if part and part != "as configured"]
    bindings = (*base, *variant.bindings)
    shown = "; ".join(names) or "as configured"
    try:
        found = answer(dataclasses.replace(job, bindings=(*job.bindings, *bindings)))
    except UserError as error:
        return Trial(shown, bindings, None, str(error))
    return Trial(shown, bindings, found)
