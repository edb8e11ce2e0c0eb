"""`moe-jax compare`, with runs that nobody has trained."""

import json

import fake_runs
import fake_study
import pytest

from moe_jax import cli
from moe_jax.compare import run_study, scheduler


@pytest.fixture
def compare(tmp_path, monkeypatch, capsys):
    """Returns a function that runs the verb; child processes write runs without training."""
    monkeypatch.setattr(scheduler, "POLL_SECONDS", 0.001)
    behaviour = {}

    def fake(study, options, observe, say):
        children = fake_study.FakeChildren(study, behaviour)
        return train(study, options, observe, say, children)

    train = run_study.run_study
    monkeypatch.setattr(run_study, "run_study", fake)

    def run(*argv):
        code = cli.main(["compare", f"--output_dir={tmp_path / 'study'}", *argv])
        return code, *capsys.readouterr()

    run.behaviour = behaviour
    return run


def test_report_of_runs_that_exist(tmp_path, compare):
    paths = []
    for router in ("expert_choice", "gshard"):
        for seed in (1, 2):
            losses = {s: 5.0 - 0.01 * s - 0.001 * seed for s in range(5, 41, 5)}
            paths.append(tmp_path / f"{router}_{seed}")
            fake_runs.write_run(paths[-1], losses, router=router, seed=seed)
    code, out, _ = compare(*map(str, paths), "--json", "--baseline=expert_choice")
    result = json.loads(out.splitlines()[-1])
    assert code == 0
    assert result["baseline"] == "expert_choice"
    assert {name: arm["seeds"] for name, arm in result["routers"].items()} == {
        "expert_choice": 2,
        "gshard": 2,
    }
    assert (tmp_path / "study/report.html").exists()
    assert (tmp_path / "study/report.md").exists()


def test_a_study_is_trained_and_reported_and_then_only_reported(tmp_path, compare):
    file = fake_study.write_study(tmp_path)
    code, out, _ = compare(f"--gin_file={file}", "--json")
    lines = out.splitlines()
    assert code == 0
    assert lines[0].startswith("1/6 ec/seed_1 finished in ")
    result = json.loads(lines[-1])
    assert result["routers"].keys() == {"ec", "gshard"}
    assert result["report"] == str(tmp_path / "study/report.html")
    # From results.jsonl alone.
    (tmp_path / "study/runs").rename(tmp_path / "gone")
    code, again, _ = compare("--report_only", "--json")
    assert (code, json.loads(again.splitlines()[-1])) == (0, result)


def test_commands_for_another_scheduler(tmp_path, compare):
    file = fake_study.write_study(tmp_path)
    code, out, _ = compare(f"--gin_file={file}", "--print_commands", "--no_cache")
    assert code == 0
    assert len(out.splitlines()) == 6
    assert all(line.startswith("moe-jax train --gin_file=") for line in out.splitlines())
    assert not (tmp_path / "study/results.jsonl").exists()


def test_failed_runs_are_listed_at_the_end(tmp_path, compare):
    compare.behaviour["gshard/seed_2"] = "fails"
    file = fake_study.write_study(tmp_path)
    code, _, error = compare(f"--gin_file={file}")
    assert code == 1
    assert "1 run failed; the same command tries again:" in error
    assert "gshard/seed_2: moe-jax: there is no file x.txt (exit code 1, log: " in error
    # The report is on the others.
    assert (tmp_path / "study/report.html").exists()


def test_without_any_run_there_is_no_report(tmp_path, compare):
    file = fake_study.write_study(tmp_path)
    compare.behaviour |= dict.fromkeys(
        ["ec/seed_1", "ec/seed_2", *(f"gshard{aa}/seed_{s}" for aa in ("", "_aa") for s in (1, 2))],
        "fails",
    )
    code, _, error = compare(f"--gin_file={file}")
    assert code == 1
    assert "6 runs failed; the same command tries again:" in error
    assert error.splitlines()[-1] == (
        f"moe-jax: no report: nothing is recorded in {tmp_path / 'study'} yet"
    )


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--baseline=gshrd", "--baseline=gshrd is unknown; known: ec, gshard. Did you mean"),
        ("--matched_by=flop", "--matched_by=flop is unknown; known: steps, tokens, slots, flops"),
    ],
)
def test_choices_are_checked_before_training(tmp_path, compare, flag, message):
    file = fake_study.write_study(tmp_path)
    code, _, error = compare(f"--gin_file={file}", flag)
    assert code == 1
    assert message in error
    assert not (tmp_path / "study").exists()


def test_the_directory_of_a_run_is_no_output_directory(tmp_path, compare):
    fake_runs.write_run(tmp_path / "study")
    code, _, error = compare("--report_only")
    assert code == 1
    assert "is a run directory (it has a config.gin): give one of its own" in error


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "what is to be compared? Give a study"),
        (["x", "--gin_file=y.gin"], "give either --gin_file, a study to train, or paths"),
        (["--gin_file=y.gin", "--parallel=0"], "--parallel must be above 0, not 0"),
        (["x", "--print_commands"], "--print_commands prints the runs of a study"),
        (["--gin_file=runs/compare_quik.gin"], "Did you mean 'runs/compare_quick.gin'?"),
        (["--gin_file=runs/quickstart.gin"], "runs/quickstart.gin is no study: it sets no Study"),
        (["--report_only"], "yet: run without --report_only"),
        (["no_such_run"], "there is no run directory and no file no_such_run"),
    ],
)
def test_mistakes_are_one_line(tmp_path, compare, flags, message):
    code, _, error = compare(*flags)
    assert code == 1
    assert message in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "study").exists()
