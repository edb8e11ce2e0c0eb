"""The journal of a study: `study.json`, written whenever the state of a job changes."""

from collections.abc import Callable, Sequence

from moe_jax.compare.jobs import Job
from moe_jax.compare.scheduler import Observer, Progress
from moe_jax.compare.study_directory import Plan, StudyDirectory


class Journal:
    """Keeps `study.json` up to date, and shows the progress.

    Args:
        directory: the directory of the study.
        plan: what the study compares.
        jobs: returns the jobs whose configuration is known.
        observe: shows the progress.
    """

    def __init__(
        self,
        directory: StudyDirectory,
        plan: Plan,
        jobs: Callable[[], Sequence[Job]],
        observe: Observer,
    ):
        self._directory, self._plan, self._jobs = directory, plan, jobs
        self._observe = observe
        self._written: dict[str, str] | None = None

    def note(self, progress: Progress) -> None:
        """Observes the progress."""
        self._observe(progress)
        if dict(progress.states) == self._written:
            return
        path = self._directory.path
        entries = {
            job.name: {
                "state": progress.states.get(job.name, "waiting"),
                **job.facts(path),
                "command": job.command(path),
                **({"error": progress.errors[job.name]} if job.name in progress.errors else {}),
            }
            for job in self._jobs()
        }
        self._directory.write_study(self._plan, entries)
        self._written = dict(progress.states)
