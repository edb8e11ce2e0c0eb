"""The command line from end to end, on a model of some thousand parameters and its own text."""

import json
import os
import subprocess
import sys

import compiling
import jax
import numpy as np
import pytest
import tiny
from on_disk import records
from tiers import slow

from moe_jax import cli
from moe_jax.config_source import ConfigSource
from moe_jax.data.sources.embedded_corpus import embedded_documents
from moe_jax.errors import UserError
from moe_jax.runs.evaluation import evaluate, read_evaluation_data
from moe_jax.runs.generation import TextGenerator
from moe_jax.runs.loading import load_model, load_run

GIN = f"""{tiny.RUN}
STEPS = 6
Model.num_layers = 2
Data.eval_batches = 2
WarmupCosine.warmup_steps = 1
Train.eval_every = 3
Checkpoints.every = 2
Sampling.max_new_tokens = 8
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Returns a directory with a configuration and a text file to train on."""
    directory = tmp_path_factory.mktemp("cli")
    (directory / "tiny.gin").write_text(GIN)
    lines = "\n".join(embedded_documents("validation")[:6]).replace(". ", ".\n")
    (directory / "book.txt").write_text(lines)
    return directory


def run(capsys, *argv):
    """Runs a command in this process; returns its exit code, output and errors."""
    code = cli.main([str(a) for a in argv])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def train(capsys, home, name, *argv):
    return run(
        capsys,
        "train",
        f"--gin_file={home / 'tiny.gin'}",
        f"--output_dir={home / name}",
        f"--gin.TASK=text:{home}/*.txt",
        *argv,
    )


@pytest.fixture(scope="module")
def trained(home):
    """Returns the directory of a finished run and its result."""
    argv = ["train", f"--gin_file={home / 'tiny.gin'}", f"--output_dir={home / 'run'}"]
    argv += [f"--gin.TASK=text:{home}/*.txt", "--json"]
    result = subprocess.run(
        [sys.executable, "-m", "moe_jax.cli", *argv],
        env={**os.environ, **compiling.ENVIRONMENT},
        capture_output=True,
        text=True,
        check=True,
    )
    return home / "run", result


def test_training_leaves_a_complete_run_directory(trained):
    directory, result = trained
    figures = json.loads(result.stdout.splitlines()[-1])
    for key in ("loss", "perplexity", "bits_per_byte", "causal_loss", "causal_bits_per_byte"):
        assert np.isfinite(figures[key])
    assert "routed as trained" in result.stdout
    assert "A sample that it wrote" in result.stdout
    assert "moe-jax generate --checkpoint=" in result.stdout
    assert "Traceback" not in result.stderr
    assert [r["step"] for r in records(directory, "train")] == [1, 2, 3, 4, 5, 6]
    assert [r["step"] for r in records(directory, "eval")] == [3, 6]
    assert {int(p.name) for p in (directory / "checkpoints").iterdir()} == {2, 4, 6}
    record = json.loads((directory / "run.json").read_text())
    assert record["tokens_per_step"] == 8 * 32
    assert record["packages"]["jax"]
    assert (directory / "config.gin").read_text().count("Model.num_layers = 2") == 1
    assert list((directory / "tensorboard").iterdir())


def test_bits_per_byte_follow_from_loss_tokens_and_bytes(trained):
    directory, _ = trained
    figures = records(directory, "eval")[-1]
    expected = figures["loss"] * figures["tokens"] / np.log(2) / figures["bytes"]
    assert figures["bits_per_byte"] == pytest.approx(expected)


def test_a_finished_run_says_so(trained, home, capsys):
    code, out, _ = train(capsys, home, "run", "--gin.Train.log_every=5")
    assert code == 0
    assert "Done already" in out
    assert "differs, but not in the model: Train.log_every is 5, was 1" in out
    assert not (home / "run" / "owner.json").exists()


def test_a_finished_run_of_another_model_is_not_done_already(trained, home, capsys):
    code, out, err = train(capsys, home, "run", "--gin.Model.d_ff=64", "--gin.Train.log_every=5")
    assert code == 1
    assert "Done already" not in out
    assert "is a finished run of another configuration: Model.d_ff is 64, was 32." in err
    assert err.count("\n") == 1


@pytest.fixture
def compiled(caplog):
    """Returns a function that gives the number of compilations of the training step so far."""
    jax.config.update("jax_log_compiles", True)
    yield lambda: sum(
        message.startswith("Compiling jit(step) ") for _, _, message in caplog.record_tuples
    )
    jax.config.update("jax_log_compiles", False)


@pytest.mark.slow
def test_more_steps_resume_where_the_run_was(trained, home, capsys, compiled):
    """A run of 6 steps made longer equals one that was long from the start (law 4).

    Each of the three attempts compiles its step once (law 7), before the first batch is there.
    """
    constant = ["--gin.AdamW.learning_rate=@InverseSquareRoot()", "--gin.STEPS=8"]
    constant += ["--gin.InverseSquareRoot.scale=0.1", "--gin.Train.eval_every=0"]
    # WarmupCosine is not used any more, so its bindings are unused, which is allowed.
    assert train(capsys, home, "whole", *constant)[0] == 0
    assert train(capsys, home, "parts", *constant, "--gin.STEPS=4")[0] == 0
    code, out, _ = train(capsys, home, "parts", *constant)
    assert code == 0
    assert "Going on from step 4" in out
    assert "configuration changed" in out
    whole, parts = (records(home / name, "train") for name in ("whole", "parts"))
    assert [r["step"] for r in parts] == [r["step"] for r in whole]
    assert [r["loss"] for r in parts] == [r["loss"] for r in whole]
    assert compiled() == 3
    last = [records(home / name, "eval")[-1]["causal_loss"] for name in ("whole", "parts")]
    assert last[0] == last[1]


def test_eval_gives_the_figures_of_training(trained, capsys):
    directory, _ = trained
    code, out, _ = run(capsys, "eval", f"--checkpoint={directory}", "--json")
    figures, logged = json.loads(out.splitlines()[-1]), records(directory, "eval")[-1]
    assert code == 0
    for key in ("loss", "causal_loss", "causal_bits_per_byte"):
        assert figures[key] == pytest.approx(logged[key], rel=1e-6)
    code, out, _ = run(
        capsys, "eval", f"--checkpoint={directory}/checkpoints", "--step=2", "--json"
    )
    assert json.loads(out.splitlines()[-1])["loss"] > figures["loss"]


def test_a_run_is_used_from_python_without_printing(trained, capsys):
    directory, _ = trained
    model = load_model(load_run(str(directory), ConfigSource()))
    figures = evaluate(model, read_evaluation_data(model.run))
    assert figures.loss == pytest.approx(records(directory, "eval")[-1]["loss"], rel=1e-6)
    generate = TextGenerator(model)
    first, second = generate("Call me", samples=2)
    assert [first] == list(generate("Call me"))
    assert isinstance(second, str)
    assert capsys.readouterr().out == ""


def test_generate_writes_text(trained, capsys):
    directory, _ = trained
    code, out, _ = run(
        capsys,
        "generate",
        f"--checkpoint={directory}",
        "--prompt=The whale",
        "--samples=2",
        "--json",
    )
    result = json.loads(out.splitlines()[-1])
    assert code == 0
    assert len(result["texts"]) == 2
    assert result["texts"][0] != result["texts"][1]
    assert "The whale" + result["texts"][0] in out


def test_generate_writes_texts_of_a_file_of_prompts(trained, tmp_path, capsys):
    """Two prompts, two samples each, in one batch; one of them alone, streamed, is the same."""
    directory, _ = trained
    (tmp_path / "prompts.txt").write_text("The whale\nCall me\n")
    output = tmp_path / "texts.jsonl"
    argv = [f"--checkpoint={directory}", "--gin.Sampling.max_new_tokens=8"]
    files = [f"--prompts={tmp_path}/prompts.txt", f"--output={output}", "--samples=2", "--json"]
    code, out, _ = run(capsys, "generate", *argv, *files)
    assert code == 0
    result = json.loads(out.splitlines()[-1])
    texts = [json.loads(line) for line in output.read_text().splitlines()]
    assert result["generations"] == texts
    assert result["output"] == str(output)
    places = [(t["prompt_index"], t["sample_index"], t["prompt"]) for t in texts]
    assert places == [(i, s, p) for i, p in enumerate(("The whale", "Call me")) for s in (0, 1)]
    assert all(t["tokens"] == 8 or t["ended"] for t in texts)
    code, out, _ = run(capsys, "generate", *argv, "--prompt=Call me")
    assert code == 0
    assert "Call me" + texts[2]["text"] in out
    output.write_text("mine")
    assert run(capsys, "generate", *argv, *files)[0] == 1
    assert output.read_text() == "mine"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--prompt=a", "--prompts=b"], "give one of the two"),
        (["--prompts=/nowhere/p.txt"], "there is no file /nowhere/p.txt"),
        (["--batch_size=0"], "--batch_size must be above 0, not 0"),
        (["--gin.Sampling.beams=2"], "Sampling.beams = 2 needs Sampling.temperature = 0"),
        slow(
            ["--gin.Sampling.beams=2", "--gin.Sampling.temperature=0", "--samples=3"],
            "Sampling.beams = 2 finds 2 texts, not 3 samples",
        ),
        slow(["--prompt=" + "whale " * 200], "the model was trained on rows of"),
    ],
)
def test_generate_refuses_in_one_line(trained, capsys, argv, message):
    code, out, err = run(capsys, "generate", f"--checkpoint={trained[0]}", *argv)
    assert code == 1
    assert message in err
    assert err.count("\n") == 1
    assert not out


def test_generate_reads_gin_files_over_the_run(trained, home, capsys):
    directory, _ = trained
    (home / "short.gin").write_text("Sampling.max_new_tokens = 0\n")
    argv = [f"--checkpoint={directory}", f"--gin_file={home / 'short.gin'}"]
    code, _, err = run(capsys, "generate", *argv)
    assert code == 1
    assert "Sampling.max_new_tokens must be a whole number above 0, not 0" in err


@pytest.mark.parametrize(
    ("prepare", "argv", "message"),
    [
        (None, ["--gin.Model.num_layer=2"], "Did you mean 'num_layers'?"),
        (None, ["--gin.TASK=text:/nowhere/*.txt"], "no file matches '/nowhere/*.txt'"),
        (None, ["--gin.TASK=embeded"], "Did you mean 'embedded'?"),
        (None, ["--output_dir=/dev/null/run"], "cannot write to the output directory"),
        (None, ["--gin.ExpertChoice.capacity_factor=0.001"], "capacity is zero"),
        (None, ["--gin_file=runs/quikstart.gin"], "Did you mean 'runs/quickstart.gin'?"),
        (None, ["--gin.Data.vocabulary=/nowhere.model"], "no vocabulary /nowhere.model"),
        slow(None, ["--gin.Model.vocab_size=512"], "smaller than the vocabulary of 8192"),
        (None, ["--outptu_dir=x"], "Did you mean '--output_dir'?"),
        (None, ["--gin.STEPS", "2"], "unknown argument '2'. Did you mean --gin.STEPS=2?"),
        (b"\x00\x01\x02", [], "not a text file (NUL byte at byte 0)"),
        (b"caf\xe9 au lait\n" * 99, [], "not UTF-8 text (byte 3)"),
        (b"", [], "is empty"),
        slow(b"Too little text.\n", [], "fewer than one batch of 8"),
    ],
)
def test_mistakes_are_one_line_and_a_failure(home, tmp_path, capsys, prepare, argv, message):
    if prepare is not None:
        (tmp_path / "own.txt").write_bytes(prepare)
        argv = [f"--gin.TASK=text:{tmp_path}/own.txt"]
    code, out, err = train(capsys, home, "refused", *argv)
    assert code == 1
    assert message in err
    assert err.count("\n") == 1
    assert "Traceback" not in out + err


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["eval", "--checkpoint=/nowhere"], "there is no run directory /nowhere"),
        (["generate", "--checkpoint=/usr"], "/usr is not a run directory"),
        (["train", "--output_dir=/tmp/x"], "which configuration? Give --gin_file"),
    ],
)
def test_missing_things_are_named(capsys, argv, message):
    code, _, err = run(capsys, *argv)
    assert code == 1
    assert message in err
    assert err.count("\n") == 1


def test_a_step_that_is_not_there_is_named(trained, capsys):
    directory, _ = trained
    code, _, err = run(capsys, "eval", f"--checkpoint={directory}", "--step=5")
    assert code == 1
    assert "no checkpoint at step 5; it has: 2, 4, 6" in err


@pytest.mark.slow
def test_another_model_does_not_fit_the_checkpoint(trained, home, capsys):
    """And the refused command leaves the run as it was."""
    directory, _ = trained
    files = ("config.gin", "run.json", "metrics.jsonl")
    before = [(directory / name).read_text() for name in files]
    code, _, err = train(capsys, home, "run", "--gin.Model.d_ff=64", "--gin.STEPS=9")
    assert code == 1
    assert "does not fit: Model.d_ff was 32 and is now 64; start in another directory" in err
    assert [(directory / name).read_text() for name in files] == before


def test_debug_shows_the_traceback(home, capsys):
    """The error goes on to Python, which shows it; without the flag it is one line."""
    argv = ["train", f"--gin_file={home / 'tiny.gin'}", "--output_dir=x", "--gin.Pool.kind=x"]
    code, _, err = run(capsys, *argv)
    assert (code, err.count("\n")) == (1, 1)
    with pytest.raises(UserError) as raised:
        cli.main([*argv, "--debug"])
    assert str(raised.value) in err
