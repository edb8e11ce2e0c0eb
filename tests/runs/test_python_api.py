"""`import moe_jax`: what it gives is what the verbs give, and bad input is one line."""

import json
import subprocess
import sys

import jax
import numpy as np
import pytest
import tiny

import moe_jax
from moe_jax import cli
from moe_jax.routing.router import Router

FILES = ["tiny.gin"]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A directory with a tiny trained run in it."""
    directory = tmp_path_factory.mktemp("python")
    gin = tiny.RUN + tiny.STEADY + "STEPS = 3\nCheckpoints.every = 2\nSampling.max_new_tokens = 5\n"
    (directory / "tiny.gin").write_text(gin)
    experiment = moe_jax.experiment([str(directory / "tiny.gin")])
    run = experiment.train(directory / "run", quiet=True)
    assert run.step == 3
    return directory


@pytest.fixture(scope="module")
def run(home):
    return moe_jax.load(home / "run")


def verb(capsys, *arguments):
    assert cli.main([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_a_run_says_what_it_is(run):
    assert "step 3" in repr(run)
    assert "parameters" in repr(run)


def test_it_generates_what_the_verb_generates(run, home, capsys):
    found = verb(capsys, "generate", f"--checkpoint={home / 'run'}", "--prompt=The whale")
    assert run.generate("The whale") == found["texts"][0]
    assert run.generate(["Call me", "The whale"])[1] == found["texts"][0]
    assert len(run.tokenize(run.generate("The whale", max_new_tokens=2, temperature=0.0))) <= 2
    assert run.generate("The whale", seed=1) != run.generate("The whale", seed=2)


def test_it_evaluates_as_the_verb_does(run, home, capsys):
    found = verb(capsys, "eval", f"--checkpoint={home / 'run'}")
    figures = run.evaluate()
    assert {name: found[name] for name in figures.as_dict()} == figures.as_dict()
    assert f"{figures.loss:.3f}" in str(figures)


@pytest.mark.slow
def test_it_evaluates_other_data(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = "".join(f"The square of {n} is {n * n}.\n" for n in range(2000))
    (tmp_path / "squares.txt").write_text(text)
    held_out = run.evaluate("text:squares.txt", batches=0)
    rest = run.evaluate("text:squares.txt", split="train", batches=0)
    assert held_out.bytes + rest.bytes == pytest.approx(len(text), rel=0.05)
    assert held_out.tokens < rest.tokens / 10


def test_logits_are_those_of_the_evaluation(run):
    """Their cross-entropy with the tokens of a row without padding is the loss of `evaluate`."""
    from moe_jax.data.pipeline.input_pipeline import eval_batches

    (batch, *_) = eval_batches(run.experiment.data)
    tokens_BS = np.asarray(batch.targets_BS)
    assert np.asarray(batch.weights_BS).all()
    figures = run.evaluate()
    for routing, expected in (("causal", figures.causal_loss), ("trained", figures.loss)):
        logits = run.logits(tokens_BS, routing)
        assert logits.shape == (*tokens_BS.shape, run.experiment.model.vocab_size)
        nll = -jax.nn.log_softmax(logits)[np.arange(8)[:, None], np.arange(32), tokens_BS]
        np.testing.assert_allclose(nll.mean(), expected, rtol=1e-5)


def test_a_text_is_routed(run):
    routed = run.route("The whale is large.")
    assert "".join(routed.tokens).replace("▁", " ").strip() == "The whale is large."
    assert [layer.layer for layer in routed.layers] == list(run.experiment.model.moe_layers)
    for layer in routed.layers:
        count = sum(map(len, layer.experts))
        assert layer.mean_experts == count / len(routed.tokens)
        np.testing.assert_allclose(layer.share.sum(), 1.0 if count else 0.0)
        for token, (experts, weights) in enumerate(zip(layer.experts, layer.weights, strict=True)):
            assert weights == sorted(weights, reverse=True)
            assert sorted(experts) == np.flatnonzero(layer.weight_SE[token]).tolist()
            assert [layer.weight_SE[token, e] for e in experts] == weights
    assert str(routed).splitlines()[0].split() == ["token", "layer", "1", "layer", "3"]


@pytest.mark.slow
def test_as_trained_the_experts_of_a_layer_have_equal_shares(run):
    """Expert choice over one row: every expert takes k = N c / E of its tokens."""
    tokens = run.tokenize("It was a dark and stormy night, and the whale was near. " * 4)[:32]
    layer = run.route(tokens, "trained").layers[0]
    np.testing.assert_allclose(layer.share, 1 / run.experiment.model.num_experts)


def test_a_checkpoint_by_its_path(home):
    assert moe_jax.load(home / "run" / "checkpoints" / "2").step == 2
    assert moe_jax.load(home / "run", step=2).step == 2
    with pytest.raises(moe_jax.UserError, match="is the checkpoint of step 2, not 3"):
        moe_jax.load(home / "run" / "checkpoints" / "2", step=3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda run: moe_jax.load("no/where"), "there is no run directory"),
        (lambda run: moe_jax.load(run.directory, step=1), "no checkpoint at step 1; it has: 2, 3"),
        (lambda run: moe_jax.load(run.directory, bindings="STEPS=2"), r"write \['STEPS=2'\]"),
        (lambda run: moe_jax.experiment("runs/quickstart.gin"), "files is a list of texts"),
        (lambda run: moe_jax.experiment([3]), "files is a list of texts, and 3 is none"),
        (lambda run: moe_jax.experiment(["runs/quickstrt.gin"]), "Did you mean 'runs/quickstart"),
        (lambda run: run.logits("whale", "casual"), "routing = 'casual'.*Did you mean 'causal'"),
        (lambda run: run.logits([99999]), "the token 99999 is not in the vocabulary of 8192"),
        (lambda run: run.logits([-1]), "the token -1 is not in the vocabulary"),
        (lambda run: run.logits([0.5]), "tokens are a text, or whole numbers"),
        (lambda run: run.logits(""), "tokens are a text, or whole numbers"),
        (lambda run: run.route(np.ones((2, 3), int)), "route takes one row of tokens, not 2"),
        (lambda run: run.evaluate("glue_sts2"), "unknown task 'glue_sts2'.*Did you mean"),
        (lambda run: run.generate(max_new_tokens=0), "max_new_tokens must be"),
    ],
)
def test_bad_input_is_one_line(run, call, message):
    with pytest.raises(moe_jax.UserError, match=message) as error:
        call(run)
    assert len(str(error.value).splitlines()) == 1


def test_an_experiment_shows_its_configuration(home):
    experiment = moe_jax.experiment([str(home / "tiny.gin")], ["STEPS=7"])
    assert experiment.config.train.steps == 7
    assert isinstance(experiment.config.router, Router)
    assert "STEPS = 7" in experiment.gin
    assert "7 steps" in repr(experiment)


@pytest.mark.slow
def test_a_dense_run_routes_nothing(home, tmp_path):
    dense = moe_jax.experiment([str(home / "tiny.gin")], ["Model.num_experts=0", "STEPS=1"])
    run = dense.train(tmp_path / "dense", quiet=True)
    assert run.logits([5, 6]).shape[:2] == (1, 2)
    with pytest.raises(moe_jax.UserError, match="is a dense model: it routes nothing"):
        run.route("whale")


def test_names_are_complete_and_typed():
    for name in moe_jax.__all__:
        assert getattr(moe_jax, name) is not None
    assert set(dir(moe_jax)) == set(moe_jax.__all__)
    with pytest.raises(AttributeError, match="no attribute 'lod'"):
        moe_jax.lod  # noqa: B018


def test_importing_stays_light():
    code = (
        "import sys, moe_jax; moe_jax.UserError;"
        "sys.exit(str({'jax', 'tensorflow', 'flax', 'gin', 'numpy'} & set(sys.modules) or ''))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stderr.strip() == "", result.stderr
