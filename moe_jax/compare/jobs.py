"""The jobs of a study: one run each, in the order in which they are trained."""

import dataclasses
import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from moe_jax import gin_imports
from moe_jax.compare.arms import Arm, load_settings
from moe_jax.compare.fingerprints import LOSS_WEIGHTS, decides, fingerprint
from moe_jax.compare.records import Role
from moe_jax.compare.study import AA_OFFSET, AA_SUFFIX, Study, rate_text
from moe_jax.config_source import ConfigSource
from moe_jax.errors import UserError

RUNS = "runs"
_MOST_NAMED = 3
# Stands for a value that is not written down.
_DEFAULT = "the default"


@dataclasses.dataclass(frozen=True)
class Job:
    """A run of a study.

    Attributes:
        name: its directory below `runs/`, unique in the study.
        arm: name of its arm.
        role: what the run is for.
        seed: `Train.seed`.
        data_seed: `Data.seed`.
        learning_rate: the learning rate that the study sets; None if it sets none.
        source: its gin files and bindings.
        steps: `Train.steps`.
        settings: all values that it uses, as gin writes them, by name.
        fingerprint: digest of what decides what it computes.
    """

    name: str
    arm: str
    role: Role
    seed: int
    data_seed: int
    learning_rate: float | None
    source: ConfigSource
    steps: int
    settings: Mapping[str, str]
    fingerprint: str

    def directory(self, study_directory: epath.Path) -> epath.Path:
        """Returns its run directory."""
        return study_directory / RUNS / self.name

    def flags(self, study_directory: epath.Path, cache_flags: Sequence[str] = ()) -> list[str]:
        """Returns the arguments of `moe-jax train` that train this run."""
        source = self.source
        flags = [f"--gin_file={file}" for file in source.files]
        if source.search_paths:
            flags.append(f"--gin_search_paths={','.join(source.search_paths)}")
        flags += [f"--gin.{binding}" for binding in source.bindings]
        flags += [f"--allow_imports={name}" for name in gin_imports.permitted()]
        return [*flags, *cache_flags, f"--output_dir={self.directory(study_directory)}"]

    def command(self, study_directory: epath.Path, cache_flags: Sequence[str] = ()) -> str:
        """Returns the command line that trains this run, for a shell."""
        return shlex.join(["moe-jax", "train", *self.flags(study_directory, cache_flags)])

    def child(self, study_directory: epath.Path, cache_flags: Sequence[str] = ()) -> list[str]:
        """Returns the command line of a child process that trains this run."""
        flags = self.flags(study_directory, cache_flags)
        return [sys.executable, "-m", "moe_jax.cli", "train", *flags]

    def facts(self, study_directory: epath.Path) -> dict[str, Any]:
        """Returns what `study.json` says of the job besides its state."""
        return {
            "arm": self.arm,
            "role": self.role,
            "seed": self.seed,
            "data_seed": self.data_seed,
            "learning_rate": self.learning_rate,
            "steps": self.steps,
            "fingerprint": self.fingerprint,
            "directory": str(self.directory(study_directory)),
        }


def rate_jobs(study: Study, arms: Mapping[str, Arm]) -> list[Job]:
    """Returns the trials of learning rates: of every arm that has more than one to choose from."""
    tried = {name: study.rates(name) for name in arms}
    most = max((len(rates) for rates in tried.values()), default=0)
    return [
        _job(study, arm, "rate_trial", study.rate_seed, rates[index])
        for index in range(most)
        for name, arm in arms.items()
        if len(rates := tried[name]) > max(index, 1)
    ]


def comparison_jobs(
    study: Study, arms: Mapping[str, Arm], chosen: Mapping[str, float]
) -> list[Job]:
    """Returns the runs of the comparison and the A/A runs, seed by seed over all arms.

    Args:
        study: the study.
        arms: its arms.
        chosen: learning rates by arm; of an arm without one, the configuration's is used.
    """
    jobs = []
    for seed in study.seeds:
        for name, arm in arms.items():
            jobs.append(_job(study, arm, "comparison", seed, chosen.get(name)))
        if study.aa:
            baseline = arms[study.baseline]
            jobs.append(_job(study, baseline, "aa", seed, chosen.get(study.baseline)))
    return jobs


def _job(study: Study, arm: Arm, role: Role, seed: int, rate: float | None) -> Job:
    train_seed = seed + AA_OFFSET if role == "aa" else seed
    directory = arm.name + AA_SUFFIX if role == "aa" else arm.name
    run = f"seed_{seed}"
    if role == "rate_trial":
        assert rate is not None
        run = f"rate_{rate_text(rate)}"
    values: dict[str, float] = {"Train.seed": train_seed, "Data.seed": seed}
    if rate is not None:
        values[study.rate_setting] = rate
    bindings = [f"{setting}={value!r}" for setting, value in values.items()]
    # The arm uses all of these settings, and they decide no others.
    settings = {**arm.settings, **{setting: repr(value) for setting, value in values.items()}}
    steps = arm.experiment.train.steps
    if role == "rate_trial" and study.rate_items:
        bindings += study.rate_items
        source = dataclasses.replace(arm.source, bindings=(*arm.source.bindings, *bindings))
        experiment, settings = load_settings(source)
        steps = experiment.train.steps
    return Job(
        name=f"{directory}/{run}",
        arm=arm.name,
        role=role,
        seed=train_seed,
        data_seed=seed,
        learning_rate=rate,
        source=dataclasses.replace(arm.source, bindings=(*arm.source.bindings, *bindings)),
        steps=steps,
        settings=settings,
        fingerprint=fingerprint(settings),
    )


def changes(now: Mapping[str, str], before: Mapping[str, str]) -> list[str]:
    """Returns the settings that decide what is computed and differ, as `NAME is NEW, was OLD`.

    A setting that only one of them has does not count: another version of the program may have
    added it. A weight of a loss that is missing has its default value.
    """
    weights = {name for name in now.keys() | before.keys() if name.startswith(LOSS_WEIGHTS)}
    return [
        f"{name} is {now.get(name, _DEFAULT)}, was {before.get(name, _DEFAULT)}"
        for name in sorted((now.keys() & before.keys()) | weights)
        if decides(name) and now.get(name) != before.get(name)
    ]


def check_unchanged(jobs: Sequence[Job], trained: Mapping[str, Mapping[str, str]]) -> None:
    """Refuses to go on with a study whose configuration has changed since its runs were trained.

    Args:
        jobs: the jobs of the study.
        trained: the settings that runs were trained with, by their names.

    Raises:
        UserError: in one line, naming the runs and the settings that differ.
    """
    changed = {
        job.name: lines
        for job in jobs
        if job.name in trained and (lines := changes(job.settings, trained[job.name]))
    }
    if changed:
        names, lines = list(changed), next(iter(changed.values()))
        raise UserError(
            f"the configuration of {_first(names, ', ')} has changed since "
            f"{'they were' if len(changed) > 1 else 'it was'} trained: {_first(lines, '; ')}. "
            "Restore it, or give another --output_dir"
        )


def _first(texts: Sequence[str], separator: str) -> str:
    more = f" and {len(texts) - _MOST_NAMED} more" if len(texts) > _MOST_NAMED else ""
    return separator.join(texts[:_MOST_NAMED]) + more
