"""Records of a fine-tuning study with known scores, and runs written without training."""

import json
from pathlib import Path

import fake_runs
import fake_study

from moe_jax import config, experiments
from moe_jax.compare.records import Curve, Health
from moe_jax.compare.task_records import FinetunedRun, FinetuningPlan, TaskBaseline
from moe_jax.config_source import ConfigSource
from moe_jax.finetuning.models import PretrainedModel
from moe_jax.finetuning.plan import load_finetuning

TASKS = {"glue_sst2_v002": "accuracy", "glue_stsb_v002": "pearson_corrcoef"}
# Scores by arm, task and seed.
SCORES = {
    "ec": {
        "glue_sst2_v002": {1: 80.0, 2: 82.0, 3: 84.0},
        "glue_stsb_v002": {1: 20.0, 2: 26.0, 3: 20.0},
    },
    "dense": {
        "glue_sst2_v002": {1: 79.0, 2: 80.0, 3: 84.0},
        "glue_stsb_v002": {1: 21.0, 2: 22.0, 3: 17.0},
    },
}


def plan(**changes):
    """Returns the plan of `SCORES`."""
    values = {
        "question": "Does EC fine-tune better?",
        "arms": {"ec": "from runs/ec", "dense": "from runs/dense"},
        "tasks": TASKS,
        "seeds": (1, 2, 3),
        "command": "moe-jax finetune --checkpoint=ec=runs/ec --output_dir=study",
        "source": "Finetuning.tasks = ('glue_sst2', 'glue_stsb')\n",
    }
    return FinetuningPlan(**{**values, **changes})


def run(arm, task, seed, score, **changes):
    """Returns a finished run whose best evaluation, at step 20, has a score."""
    metric = TASKS.get(task, "accuracy")
    values = {
        "arm": arm,
        "name": f"{arm}/{task}/seed_{seed}",
        "role": "comparison",
        "seed": seed,
        "data_seed": seed,
        "learning_rate": 1e-3,
        "fingerprint": "0" * 16,
        "planned_steps": 30,
        "outcome": "finished",
        "curve": Curve((10, 20, 30), (3.0, 2.0, 2.5), (3.0, 2.0, 2.5)),
        "tokens_per_step": 256,
        "eval_tokens": 512,
        "slots_per_token": 2.0,
        "flops_per_token": 1e6,
        "parameters": 1000,
        "active_parameters": 500,
        "router": "expert_choice",
        "pool": "batch",
        "is_causal": False,
        "health": Health(),
        "settings": {},
        "data": {},
        "environment": {"moe_jax": "0.1.0"},
        "command": f"moe-jax train --gin.Train.seed={seed} --output_dir={arm}/{task}/seed_{seed}",
        "task": task,
        "metric": metric,
        "model": f"runs/{arm}",
        "examples": 100,
        "best_step": 20,
        "scores": {metric: score},
        "causal_scores": {metric: score - 1},
        "last_scores": {metric: score - 2},
        "score_steps": (10, 20, 30),
        "score_curve": (score - 3, score, score - 2),
    }
    return FinetunedRun(**{**values, **changes})


def records():
    """Returns the plan, all runs of `SCORES`, and the yardsticks of SST-2."""
    runs = [
        run(arm, task, seed, score)
        for arm, by_task in SCORES.items()
        for task, by_seed in by_task.items()
        for seed, score in by_seed.items()
    ]
    baselines = [
        TaskBaseline("glue_sst2_v002", "majority", {"accuracy": 50.9}, 872, 67349),
        TaskBaseline("glue_sst2_v002", "bag_of_words", {"accuracy": 82.5}, 872, 67349),
    ]
    return [plan(), *runs, *baselines]


def evaluation(step, accuracy, causal=None, **changes):
    """Returns a record of `metrics.jsonl` with scores."""
    record = {
        **fake_runs.evaluation_record(step, 3.0, 3.0),
        "task/accuracy": accuracy,
        "task/score": accuracy,
    }
    if causal is not None:
        record["task/causal/accuracy"] = causal
    return {**record, **changes}


def write_run(directory: Path, records, steps=30):
    """Writes a run directory with these records."""
    return fake_runs.write_run(
        directory, None, steps=steps, records=[fake_runs.training_record(10), *records]
    )


def json_lines(path: Path):
    """Returns the objects of a file of JSON lines."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def make_run(directory: Path) -> str:
    """Writes what a trained run has, without parameters, and returns its path."""
    fake_runs.write_run(directory, {10: 4.0}, steps=10)
    (directory / "checkpoints").mkdir(exist_ok=True)
    return str(directory)


def pretrained(directory: Path) -> PretrainedModel:
    """Returns a model with the configuration of the quickstart."""
    path = make_run(directory)
    experiments.load(ConfigSource(("runs/quickstart.gin",)))
    (directory / "config.gin").write_text(config.operative())
    return PretrainedModel(directory.name, path, f"{path}/config.gin")


def load(*bindings: str):
    """Returns `runs/finetune.gin` with bindings."""
    return load_finetuning(ConfigSource(("runs/finetune.gin",), bindings))


class FinetuningChildren:
    """Child processes that write runs with given scores, or none."""

    def __init__(self, study, score=lambda job: 70.0, predicts=True):
        self._study, self._score, self._predicts = study, score, predicts
        self.started = []

    def __call__(self, command, log, place):
        (output,) = (a.partition("=")[2] for a in command if a.startswith("--output_dir="))
        (job,) = (
            job
            for job in self._study.jobs
            if str(job.directory(self._study.directory.path)) == output
        )
        self.started.append(job.name)
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text("moe-jax: no such data\n")
        score = self._score(job)
        if score is None:
            return fake_study.FakeChild(log, 1)
        records = [evaluation(10, score), evaluation(30, score - 1)]
        write_run(Path(output), records)
        text = "".join(f"{name} = {value}\n" for name, value in job.settings.items())
        (Path(output) / "config.gin").write_text(text)
        if self._predicts:
            (Path(output) / "predictions_validation.jsonl").write_text("{}\n" * 100)
        return fake_study.FakeChild(log, 0)
