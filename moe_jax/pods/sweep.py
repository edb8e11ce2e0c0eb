"""Search for the fastest configuration of a model on a topology, by compile reports."""

import contextlib
import dataclasses
from collections.abc import Iterator
from contextlib import AbstractContextManager

from moe_jax.errors import UserError
from moe_jax.experiments import Experiment, load
from moe_jax.pods.compiler import CompileJob, ProgressCallback, compile_step, ignore_progress
from moe_jax.pods.lowering import argument_bytes
from moe_jax.pods.report import CompileReport, build_report
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
    """A variant of the configuration, and its result.

    Attributes:
        name: of all differences from the configuration.
        bindings: gin bindings added to the configuration's.
        report: of the compiled step; None if it was rejected or not compiled.
        error: why it was rejected.
        files: gin files added to the configuration's.
        minimum_bytes: bytes of parameters, optimiser state and batch on one device if these alone
            exceed its memory, in which case the step is not compiled; otherwise 0.
    """

    name: str
    bindings: tuple[str, ...]
    report: CompileReport | None
    error: str = ""
    files: tuple[str, ...] = ()
    minimum_bytes: int = 0

    @property
    def fits(self) -> bool:
        """True if the step fits into memory."""
        return self.report is not None and self.report.fits

    @property
    def seconds(self) -> float:
        """Fastest step time; infinite if it does not fit."""
        if self.report is None or self.report.fastest is None or not self.fits:
            return float("inf")
        return self.report.fastest.seconds


class TrialObserver:
    """Observer of a search; this one does nothing."""

    def running(self, name: str) -> AbstractContextManager[ProgressCallback]:
        """Returns a context for one trial, which provides its progress callback."""
        return contextlib.nullcontext(ignore_progress)

    def finished(self, trial: Trial) -> None:
        """Receives every trial when it has finished."""


def compile_and_report(
    job: CompileJob, on_progress: ProgressCallback = ignore_progress
) -> CompileReport:
    """Compiles a job and returns its report.

    Args:
        job: configuration and target.
        on_progress: called with the current stage.

    Raises:
        UserError: for a mistake in the configuration, or if the compiler fails.
    """
    compiled = compile_step(job, on_progress)
    on_progress("reading the program")
    return build_report(load_experiment(job), job.topology, compiled)


def load_experiment(job: CompileJob) -> Experiment:
    """Returns the experiment that a job's gin files configure.

    Raises:
        UserError: for a mistake in the files.
    """
    return load(job.source)


def minimum_bytes(job: CompileJob) -> dict[str, int]:
    """Returns bytes of parameters, optimiser state and batch on one device, without compiling.

    Raises:
        UserError: for a mistake in the configuration, or if mesh or batch do not match the devices.
    """
    return argument_bytes(load_experiment(job), job.topology.device_count)


def sweep(job: CompileJob, observer: TrialObserver) -> list[Trial]:
    """Tries one kind of variant after the other, each on top of the best so far.

    The kinds are meshes, rematerialisation, compiler options, and the implementation of expert
    parallelism: a coordinate search, not one of all combinations.

    Args:
        job: the configuration.
        observer: of the trials.

    Returns:
        All trials, ranked.
    """
    experiment = load_experiment(job)
    best = Trial(AS_CONFIGURED, (), None)
    best = try_variant(job, Variant(AS_CONFIGURED, ()), best, observer)
    trials = [best]
    for kind, variants in _variants_by_kind(experiment, job):
        of_kind = [
            try_variant(
                job,
                variant,
                best,
                observer,
                f"{kind} {number} of {len(variants)}: ",
                kind == "mesh",
            )
            for number, variant in enumerate(variants, 1)
        ]
        trials += of_kind
        best = min([best, *of_kind], key=lambda trial: trial.seconds)
    return ranked(trials)


def ranked(trials: list[Trial]) -> list[Trial]:
    """Returns trials in order: those that fit by step time, those that do not, rejected ones."""
    return sorted(
        trials, key=lambda trial: (trial.seconds, trial.report is None, trial.error != "")
    )


def _variants_by_kind(
    experiment: Experiment, job: CompileJob
) -> Iterator[tuple[str, list[Variant]]]:
    yield "mesh", mesh_variants(experiment, job.topology)
    yield "rematerialisation", remat_variants()
    yield "options", option_variants(job.topology)
    yield "dispatch", dispatch_variants(experiment)


def try_variant(
    job: CompileJob,
    variant: Variant,
    base: Trial,
    observer: TrialObserver,
    prefix: str = "",
    checks_state: bool = False,
) -> Trial:
    """Compiles a variant on top of an earlier trial.

    Args:
        job: the configuration.
        variant: of the configuration with the changes of `base`.
        base: earlier trial.
        observer: of the trials.
        prefix: of the variant's name, for the observer.
        checks_state: whether to skip compilation if the state alone exceeds the memory.
    """
    names = [part for part in (base.name, variant.name) if part != AS_CONFIGURED]
    trial = Trial(
        "; ".join(names) or AS_CONFIGURED,
        (*base.bindings, *variant.bindings),
        None,
        files=(*base.files, *variant.files),
    )
    with observer.running(prefix + variant.name) as on_progress:
        trial = _compiled(with_changes(job, trial), trial, on_progress, checks_state)
    observer.finished(trial)
    return trial


def with_changes(job: CompileJob, trial: Trial) -> CompileJob:
    """Returns a job with the files and bindings of a trial added."""
    source = job.source
    changed = dataclasses.replace(
        source,
        files=(*source.files, *trial.files),
        bindings=(*source.bindings, *trial.bindings),
    )
    return dataclasses.replace(job, source=changed)


def _compiled(
    job: CompileJob, trial: Trial, on_progress: ProgressCallback, checks_state: bool
) -> Trial:
    try:
        if checks_state:
            minimum = sum(minimum_bytes(job).values())
            if minimum > job.topology.chip.hbm_limit_per_device:
                return dataclasses.replace(trial, minimum_bytes=minimum)
        return dataclasses.replace(trial, report=compile_and_report(job, on_progress))
    except UserError as error:
        return dataclasses.replace(trial, error=str(error))
