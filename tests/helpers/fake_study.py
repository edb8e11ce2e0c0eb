"""A small study, and child processes that write its runs without training."""

import json
from pathlib import Path

import fake_runs

from moe_jax.compare.planned_runs import StudyOptions
from moe_jax.compare.run_study import plan_study
from moe_jax.compare.study import load_study
from moe_jax.config_source import ConfigSource

STUDY = """
Study.question = 'Which router?'
Study.common = ['runs/quickstart.gin', 'STEPS=40', 'Data.batch_size=8', 'Data.sequence_length=32']
Study.arms = {
    'ec': ['routers/expert_choice.gin'],
    'gshard': ['routers/gshard_top2.gin'],
}
Study.baseline = 'gshard'
Study.seeds = (1, 2)
Study.timing_rounds = 0
Study.leak_test_steps = 0
"""


def write_study(directory: Path, text: str = STUDY) -> str:
    """Writes a study's gin file and returns its path."""
    path = directory / "study.gin"
    path.write_text(text)
    return str(path)


def plan(directory: Path, *bindings: str, text: str = STUDY, **options):
    """Returns a planned study in `directory`/study, and its options."""
    loaded = load_study(ConfigSource([write_study(directory, text)], list(bindings)))
    chosen = StudyOptions(str(directory / "study"), "moe-jax compare ...", **options)
    return plan_study(loaded, chosen), chosen


def write_job(study, job, losses=None, records=None):
    """Writes the run of a job as a child process would have left it."""
    directory = Path(str(job.directory(study.directory.path)))
    fake_runs.write_run(directory, losses, steps=job.steps, records=records)
    text = "".join(f"{name} = {value}\n" for name, value in job.settings.items())
    (directory / "config.gin").write_text(text)
    return directory


def diverged_records():
    """Returns the records of a run that ended in skipped updates."""
    first = fake_runs.training_record(10), fake_runs.evaluation_record(10, 4.0, 4.0)
    bad = [
        fake_runs.training_record(step, loss=None, skipped_in_row=n, skipped_total=n)
        for n, step in enumerate(range(11, 22), 1)
    ]
    return [*first, *bad]


class FakeChild:
    """A child process that has ended, or runs until it is terminated."""

    def __init__(self, log, code):
        self.log, self.code, self.terminated = log, code, 0
        self.log_start = 0

    def poll(self):
        return self.code

    def terminate(self):
        self.terminated += 1
        self.code = 143


class FakeChildren:
    """Starts fake child processes.

    Args:
        study: the planned study.
        behaviour: what the runs do, by name: `finishes` (default), `fails`, `diverges`, `runs`,
            `is elsewhere`, or something to call with the job.

    Attributes:
        started: names of the jobs, in the order in which they were started.
        places: their places.
        children: the processes by name.
    """

    def __init__(self, study, behaviour=()):
        self._study, self._behaviour = study, dict(behaviour)
        self.started, self.places, self.children = [], [], {}

    def __call__(self, command, log, place):
        (output,) = (a.partition("=")[2] for a in command if a.startswith("--output_dir="))
        (job,) = (
            job
            for job in self._study.known_jobs()
            if str(job.directory(self._study.directory.path)) == output
        )
        self.started.append(job.name)
        self.places.append(place)
        code = self._run(job, log, self._behaviour.get(job.name, "finishes"))
        self.children[job.name] = FakeChild(log, code)
        return self.children[job.name]

    def _run(self, job, log, behaviour):
        log.parent.mkdir(parents=True, exist_ok=True)
        if behaviour == "finishes":
            write_job(self._study, job)
            return 0
        if behaviour == "diverges":
            write_job(self._study, job, records=diverged_records())
            return 1
        if behaviour == "fails":
            log.write_text("reading\nmoe-jax: there is no file x.txt\nbye\n")
            return 1
        if behaviour == "runs":
            return None
        return behaviour(job)


def states(study):
    """Returns the states in `study.json`."""
    found = json.loads(Path(str(study.directory.path / "study.json")).read_text())
    return {name: job["state"] for name, job in found["jobs"].items()}
