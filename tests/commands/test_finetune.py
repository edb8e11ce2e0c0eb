"""`moe-jax finetune`, with runs that nobody has trained."""

import json
import shlex
import shutil

import pytest
from fake_finetuning import FinetuningChildren, pretrained

from moe_jax import cli
from moe_jax.compare import scheduler
from moe_jax.compare.task_records import TaskBaseline
from moe_jax.finetuning import study as finetuning_study

FLAGS = ("--gin_file=runs/finetune.gin", "--gin.SEEDS=(1, 2, 3)", "--gin.STEPS=30")


@pytest.fixture
def finetune(tmp_path, monkeypatch, capsys):
    """Returns a function that runs the verb; child processes write runs without training."""
    monkeypatch.setattr(scheduler, "POLL_SECONDS", 0.001)
    monkeypatch.setattr(
        finetuning_study,
        "measure_baselines",
        lambda source, task: [TaskBaseline(task, "majority", {"accuracy": 50.0}, 10, 20)],
    )
    model, scores = pretrained(tmp_path / "ec"), {1: 80.0, 2: 82.0, 3: 84.0}

    def fake(study, options, observe, say):
        children = FinetuningChildren(study, lambda job: scores.get(job.seed))
        return train(study, options, observe, say, children)

    train = finetuning_study.run_finetuning
    monkeypatch.setattr(finetuning_study, "run_finetuning", fake)

    def run(*argv, checkpoint=f"--checkpoint={model.checkpoint}"):
        flags = [f"--output_dir={tmp_path / 'study'}", *([checkpoint] if checkpoint else [])]
        code = cli.main(["finetune", *flags, *argv])
        return code, *capsys.readouterr()

    run.scores = scores
    return run


def test_a_study_from_its_gin_file_to_its_report(tmp_path, finetune):
    code, out, _ = finetune(*FLAGS, "--json")
    assert code == 0
    result = json.loads(out.splitlines()[-1])
    found = result["tasks"]["glue_sst2_v002"]
    # Of 80, 82, 84: t(0.975, 2) = 4.303, s = 2.
    assert found["metric"] == "accuracy"
    assert (found["mean"], found["std"]) == (82.0, 2.0)
    assert (found["low"], found["high"]) == pytest.approx((77.032, 86.968), abs=1e-3)
    assert set(found["seeds"]) == {"1", "2", "3"}
    assert "ec reaches 82.0 [77.0, 87.0] on the task." in out
    assert "82.0 [77.0, 87.0]" in (tmp_path / "study/report.html").read_text()
    jobs = json.loads((tmp_path / "study/study.json").read_text())["jobs"]
    assert {job["state"] for job in jobs.values()} == {"finished"}


def test_the_report_again_from_the_records_alone(tmp_path, finetune):
    finetune(*FLAGS)
    shutil.rmtree(tmp_path / "study/runs")
    results = str(tmp_path / "study/results.jsonl")
    report = (tmp_path / "study/report.html").read_bytes()
    code = finetune(*FLAGS)[0]
    assert (code, (tmp_path / "study/report.html").read_bytes()) == (0, report)
    code = cli.main(["finetune", results, f"--output_dir={tmp_path / 'again'}"])
    assert (code, (tmp_path / "again/report.html").read_bytes()) == (0, report)


def test_a_failed_run_is_an_error_after_the_report_of_the_others(tmp_path, finetune):
    finetune.scores[2] = None
    code, out, err = finetune(*FLAGS)
    assert code == 1
    assert "1 run failed; the same command tries again" in err
    assert "warning: 1 of 3 runs are not finished" in out
    assert (tmp_path / "study/report.html").exists()


def test_commands_for_another_scheduler(tmp_path, finetune):
    code, out, _ = finetune(*FLAGS, "--print_commands")
    assert code == 0
    lines = [line for line in out.splitlines() if line.startswith("moe-jax train ")]
    assert len(lines) == 3
    for line in lines:
        assert f"--gin.Initial.checkpoint='{tmp_path}/ec'" in shlex.split(line)


@pytest.mark.parametrize(
    ("argv", "checkpoint", "message"),
    [
        (FLAGS, None, "which model is to be fine-tuned? Give --checkpoint=RUN"),
        (FLAGS, "--checkpoint=nowhere", "there is no run directory"),
        (("results.jsonl", *FLAGS), "--checkpoint=x", "give either a study to report on, or"),
        (("--gin_file=runs/quickstart.gin",), "", "is no fine-tuning study"),
        ((*FLAGS, "--parallel=0"), "", "--parallel must be above 0, not 0"),
        ((*FLAGS, "--gin.TASKS=['glue_sst3']"), "", "unknown task 'glue_sst3'"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(tmp_path, finetune, argv, checkpoint, message):
    given = {} if checkpoint == "" else {"checkpoint": checkpoint}
    code, _, err = finetune(*argv, **given)
    assert code == 1
    assert message in err
    assert len(err.strip().splitlines()) == 1
    assert not (tmp_path / "study").exists()
