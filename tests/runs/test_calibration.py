"""`moe-jax calibrate`: a run of its own with other thresholds; mistakes are one line."""

import json

import numpy as np
import pytest
import tiny
from etils import epath

import moe_jax
from moe_jax import cli, strict_json
from moe_jax.config_source import ConfigSource
from moe_jax.errors import UserError
from moe_jax.runs import calibrated_run
from moe_jax.runs.calibrated_run import CalibrationSample, output_directory
from moe_jax.runs.calibration import read_sample
from moe_jax.runs.calibration_setup import load_for_calibration
from moe_jax.sharding.partition import SINGLE_DEVICE


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A directory with a tiny trained run in it, and its configuration."""
    directory = tmp_path_factory.mktemp("calibrate")
    gin = tiny.RUN + tiny.STEADY + "STEPS = 3\nPool.kind = 'sequence'\n"
    (directory / "tiny.gin").write_text(gin)
    moe_jax.experiment([str(directory / "tiny.gin")]).train(directory / "run", quiet=True)
    return directory


def contents(directory):
    return {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def call(capsys, *arguments):
    code = cli.main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture(scope="module")
def calibrated(home):
    """Returns the result of the verb, whether the run is as it was, and what was written."""
    before, written = contents(home / "run"), []
    write = calibrated_run.write_run
    flags = ["--tokens=2000", "--capacity_factor=1", f"--checkpoint={home / 'run'}"]
    args = cli.make_parser().parse_args(["calibrate", *flags])
    args.gin_bindings = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(calibrated_run, "write_run", lambda *a: (written.append(a[0]), write(*a)))
        result = cli._run_verb(args)
    return result, before == contents(home / "run"), written[0]


def test_the_calibrated_run_is_evaluated_as_any_run(calibrated, home, capsys):
    result, is_unchanged, _ = calibrated
    assert is_unchanged
    assert result["output_dir"] == str(home / "run-calibrated")
    code, out, _ = call(capsys, "eval", f"--checkpoint={home / 'run-calibrated'}", "--json")
    figures, losses = json.loads(out.splitlines()[-1]), result["losses"]
    assert code == 0
    assert figures["loss"] == pytest.approx(losses["trained"], rel=1e-5)
    assert figures["causal_loss"] == pytest.approx(losses["causal_after"], rel=1e-5)
    assert figures["mean_experts"] == 1.0
    (record,) = map(
        json.loads, (home / "run-calibrated" / "metrics.jsonl").read_text().splitlines()
    )
    for name, value in figures.items():
        if name not in ("step", "task"):
            assert record[name] == pytest.approx(value, rel=1e-5), name


def test_its_thresholds_give_experts_their_share(calibrated, home):
    """k = N c / E of the 2,048 tokens of 8 batches, of which the first inputs tie."""
    result, *_ = calibrated
    assert (result["tokens"], result["tokens_per_expert"]) == (2048, 256)
    run = moe_jax.load(home / "run-calibrated")
    assert run.step == result["step"] == 3
    (path,) = (p for p in run.variables.router_state if p.endswith("threshold"))
    expected = [layer["thresholds"] for layer in result["layers"]]
    np.testing.assert_allclose(run.variables.router_state[path], expected, rtol=1e-7)
    untouched = moe_jax.load(home / "run")
    for name, value in untouched.variables.params.items():
        np.testing.assert_array_equal(run.variables.params[name], value)
    for layer in result["layers"]:
        assert layer["after"]["mean_experts"] == pytest.approx(1.0, abs=0.25)
    assert [layer["layer"] for layer in result["layers"]] == [1, 3]
    assert isinstance(run.generate("The whale"), str)


def test_run_json_says_what_it_was_made_from(calibrated, home):
    result, *_ = calibrated
    record = json.loads((home / "run-calibrated" / "run.json").read_text())
    made = record["calibration"]
    assert made["checkpoint"] == str(home / "run")
    assert {**made, "output_dir": result["output_dir"]} == {
        "checkpoint": str(home / "run"),
        **json.loads(strict_json.dumps(result)),
    }
    assert made["capacity_factor"] == 1.0
    assert "ExpertChoice.capacity_factor = 1.0" in (home / "run-calibrated/config.gin").read_text()
    original = json.loads((home / "run" / "run.json").read_text())
    for name in ("data", "vocabulary_digest", "tokens_per_step"):
        assert record[name] == original[name]


def test_training_does_not_go_on_in_it_and_leaves_it_as_it_is(calibrated, home, capsys):
    directory = home / "run-calibrated"
    before = contents(directory / "checkpoints")
    flags = [f"--gin_file={home / 'tiny.gin'}", f"--output_dir={directory}", "--gin.STEPS=4"]
    code, _, err = call(capsys, "train", *flags, "--gin.ExpertChoice.capacity_factor=1.0")
    assert code == 1
    assert "has the model only, without the state of an optimizer" in err
    assert contents(directory / "checkpoints") == before


@pytest.fixture
def loaded(home):
    return load_for_calibration(str(home / "run"), ConfigSource()).trained


def test_a_directory_that_is_something_else_is_refused(loaded, home, calibrated, tmp_path):
    def refused(directory, text):
        with pytest.raises(UserError, match=text):
            output_directory(loaded, str(directory))

    assert output_directory(loaded, None) == epath.Path(home / "run-calibrated")
    assert output_directory(loaded, str(tmp_path)) == epath.Path(tmp_path)
    (tmp_path / "letter.txt").write_text("dear reader")
    refused(tmp_path, "is something else than a calibration of")
    refused(tmp_path / "letter.txt", "is something else than a calibration of")
    for of_run in (home / "run", home / "run" / "checkpoints", home):
        refused(of_run, "a calibration never changes the run")
    (tmp_path / "run.json").write_text(json.dumps({"calibration": {"checkpoint": "/other"}}))
    refused(tmp_path, "is something else than a calibration of")


def test_half_a_run_is_never_seen(calibrated, home, monkeypatch):
    """A save that fails leaves the earlier calibration, and nothing beside it."""
    before = contents(home)

    def fail(directory, step, variables):
        (directory / "3").mkdir(parents=True)
        raise UserError("the disk is full")

    monkeypatch.setattr(calibrated_run, "save_model", fail)
    for name in ("run-calibrated", "another"):
        with pytest.raises(UserError, match="the disk is full"):
            calibrated_run.write_run(calibrated[2], epath.Path(home / name))
    assert contents(home) == before
    assert sorted(path.name for path in home.iterdir()) == ["run", "run-calibrated", "tiny.gin"]


@pytest.mark.slow
def test_a_calibration_replaces_an_earlier_one(home, capsys):
    flags = ["calibrate", f"--checkpoint={home / 'run'}", "--tokens=2000", "--json"]
    flags += [f"--output_dir={home / 'again'}"]
    results = []
    for factor in ("1", "2"):
        code, out, _ = call(capsys, *flags, f"--capacity_factor={factor}")
        assert code == 0
        results.append(json.loads(out.splitlines()[-1]))
        record = json.loads((home / "again" / "run.json").read_text())
        assert record["calibration"]["capacity_factor"] == float(factor)
    assert results[0]["losses"]["trained"] != results[1]["losses"]["trained"]
    assert not [path for path in home.iterdir() if path.name.startswith(".")]


def test_other_splits_are_read_and_that_of_the_report_is_not(loaded):
    for split, text in (
        ("validation", "the split that the losses are reported on"),
        ("test", "has no split 'test'; it has: train, validation"),
    ):
        with pytest.raises(UserError, match=text):
            read_sample(loaded, CalibrationSample(split, 2000), SINGLE_DEVICE)
    with pytest.raises(UserError, match=r"takes 24 at .* too few .* give at least 400"):
        read_sample(loaded, CalibrationSample("train", 99), SINGLE_DEVICE)


@pytest.mark.slow
def test_a_named_split_is_read_in_order(home):
    bindings = ["Data.eval_split='train'"]
    run = load_for_calibration(str(home / "run"), ConfigSource((), bindings)).trained
    (first, second) = read_sample(run, CalibrationSample("validation", 500), SINGLE_DEVICE)
    held_out = moe_jax.load(home / "run").experiment.data
    from moe_jax.data.pipeline.input_pipeline import eval_batches

    np.testing.assert_array_equal(first.targets_BS, eval_batches(held_out)[0].targets_BS)
    assert (second.targets_BS != first.targets_BS).any()


@pytest.mark.parametrize("factor", [0.0, -1.0, 9.0, float("nan"), float("inf")])
def test_a_capacity_out_of_range_is_refused(home, factor):
    with pytest.raises(UserError, match="is not above 0 and at most 8, the number of experts"):
        load_for_calibration(str(home / "run"), ConfigSource(), capacity_factor=factor)


@pytest.mark.parametrize(
    ("file", "bindings", "method", "text"),
    [
        ("switch", ["Model.num_experts=0"], "thresholds", "is a dense model"),
        ("switch", [], "thresholds", "switch, which routes causally without its capacity and has"),
        ("topk", [], "predictor", "topk, which routes causally already and has no thresholds"),
        ("expert_choice_capped", [], "predictor", "predicts the choices of expert_choice, and"),
        ("expert_choice", [], "predictors", "is unknown; .* Did you mean 'predictor'"),
    ],
)
def test_a_router_that_a_method_cannot_calibrate_is_refused(home, file, bindings, method, text):
    source = ConfigSource((f"routers/{file}.gin",), bindings)
    with pytest.raises(UserError, match=text):
        load_for_calibration(str(home / "run"), source, method)


@pytest.mark.parametrize("file", ["expert_choice_capped", "expert_threshold"])
def test_other_routers_with_thresholds_keep_their_router(home, file):
    setup = load_for_calibration(str(home / "run"), ConfigSource((f"routers/{file}.gin",)))
    assert setup.result is setup.trained
    assert setup.trained.experiment.active_router.name == file
    assert setup.capacity_factor == 2.0


@pytest.mark.slow
def test_a_predictor_there_and_back(home, capsys):
    """The run that is made has a router of its own; its thresholds are those of training again."""
    flags = ["calibrate", "--tokens=2000", "--json"]
    code, out, _ = call(
        capsys,
        *flags,
        "--method=predictor",
        f"--checkpoint={home / 'run'}",
        f"--output_dir={home / 'predicted'}",
    )
    assert code == 0
    made = json.loads(out.splitlines()[-1])
    assert np.shape(made["layers"][0]["predictor"]) == (8, 9)
    code, out, _ = call(capsys, "eval", f"--checkpoint={home / 'predicted'}", "--json")
    figures = json.loads(out.splitlines()[-1])
    assert figures["loss"] == pytest.approx(made["losses"]["trained"], rel=1e-5)
    assert figures["causal_loss"] == pytest.approx(made["losses"]["causal_after"], rel=1e-5)
    run = moe_jax.load(home / "predicted")
    assert run.experiment.router.name == "predicted_expert_choice"
    assert run.experiment.router.pool.kind == "sequence"
    assert isinstance(run.generate("The whale"), str)
    code, out, _ = call(
        capsys, *flags, f"--checkpoint={home / 'predicted'}", f"--output_dir={home / 'back'}"
    )
    assert code == 0
    back = json.loads(out.splitlines()[-1])
    assert back["losses"]["causal_before"] == pytest.approx(made["losses"]["causal_after"], 1e-5)
    assert moe_jax.load(home / "back").experiment.router.name == "expert_choice"
