"""Curves of runs made by hand: which lines are drawn, where, and that the PNG can be read."""

import argparse
import json

import numpy as np
import pytest
from matplotlib import image

from moe_jax.commands import plot as verb
from moe_jax.errors import UserError
from moe_jax.runs import curves
from moe_jax.runs.curves import figure, plot


def make(directory, steps=(1, 2, 3, 4), eval_steps=(4,), tokens=500_000):
    """Makes a run with losses 4, 3, ..., and half an hour a step."""
    (directory / "checkpoints").mkdir(parents=True)
    (directory / "config.gin").write_text("")
    (directory / "run.json").write_text(json.dumps({"tokens_per_step": tokens}))
    records = [
        {"step": s, "kind": "train", "loss": 5.0 - s, "router/max_violation": [0.1, s / 10]}
        for s in steps
    ]
    records += [{"step": s, "kind": "eval", "causal_loss": 2.0} for s in eval_steps]
    (directory / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    moments = [
        {"attempt": "a", "time": 1000 + 1800 * s, "step": s, "seconds": {"step": 1800 * s}}
        for s in (0, 4)
    ]
    (directory / "time.jsonl").write_text("".join(json.dumps(m) + "\n" for m in moments))
    return str(directory)


@pytest.fixture
def drawn(monkeypatch):
    """Returns the figures that are drawn."""
    figures = []

    def keep(*args):
        figures.append(figure(*args))
        return figures[-1]

    monkeypatch.setattr(curves, "figure", keep)
    return figures


def test_two_runs_in_one_png(tmp_path, drawn, capsys):
    runs = [make(tmp_path / "one"), make(tmp_path / "two", eval_steps=())]
    output = str(tmp_path / "plots" / "curves.png")
    panels = "loss,eval,speed,balance"
    result = verb.run(argparse.Namespace(directories=runs, output=output, what=panels, x="steps"))
    # No run has a speed; the second has no evaluation.
    assert result["drawn"] == {
        "loss": ["one", "two"],
        "eval": ["one"],
        "balance": ["one", "two"],
    }
    never = "no evaluation is on record yet (Train.eval_every, and after the last step)"
    second = "it is known from the second step on, and no later one is on record"
    assert result["not_drawn"] == {
        "eval": {"two": never},
        "speed": {"one": second, "two": second},
    }
    lines = capsys.readouterr().out.splitlines()
    assert lines[1:] == [f"not drawn: eval of two: {never}", f"not drawn: speed: {second}"]
    # Of the loss, a raw and a smooth line for each run.
    assert [len(axes.lines) for axes in drawn[0].axes] == [4, 1, 2]
    assert [text.get_text() for text in drawn[0].legends[0].get_texts()] == ["one", "two"]
    assert list(drawn[0].axes[0].lines[0].get_ydata()) == [4, 3, 2, 1]
    # Means over three and, at the ends, over one: a window to one side would shift a slope.
    assert np.allclose(curves._smooth(np.array([4.0, 3, 2, 7]), 3), [4, 3, 4, 7])
    assert np.allclose(drawn[0].axes[2].lines[0].get_ydata(), [0.1, 0.2, 0.3, 0.4])
    pixels = image.imread(tmp_path / "plots" / "curves.png")
    assert pixels.shape[:2] == (960, 1260)
    assert pixels.std() > 0


@pytest.mark.parametrize(
    ("x", "places"),
    [("steps", [1, 2, 3, 4]), ("tokens", [0.5, 1, 1.5, 2]), ("hours", [0.5, 1, 1.5, 2])],
)
def test_the_x_axis(tmp_path, drawn, x, places):
    plot([make(tmp_path / "one")], str(tmp_path / "p.png"), ["loss"], x=x)
    assert np.allclose(drawn[0].axes[0].lines[0].get_xdata(), places)


def test_runs_of_one_name_are_told_apart(tmp_path):
    runs = [make(tmp_path / "a" / "run"), make(tmp_path / "b" / "run")]
    result = plot(runs, str(tmp_path / "p.png"), ["eval"])
    assert result.drawn == {"eval": ["a/run", "b/run"]}


def records(run, *lines):
    """Replaces a run's metrics."""
    with open(f"{run}/metrics.jsonl", "w") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)


def test_every_reason_for_an_empty_panel(tmp_path):
    run, output = make(tmp_path / "one", tokens=None), str(tmp_path / "p.png")
    for what, x, reason in (
        ("loss", "tokens", "run.json does not say how many tokens a step has"),
        ("eval", "hours", "time.jsonl has no record"),
    ):
        (tmp_path / "one" / "time.jsonl").write_text("")
        with pytest.raises(UserError, match=f"nothing to draw: {what}: {reason}"):
            plot([run], output, [what], x=x)
    records(run, {"step": 1, "kind": "train", "loss": None})
    with pytest.raises(UserError, match="loss: no loss is on record; balance: no router is on"):
        plot([run], output, ["loss", "balance"])
    records(run, {"step": 1, "kind": "eval", "causal_loss": float("nan")})
    with pytest.raises(UserError, match="eval: no value on record is finite; loss: no step is on"):
        plot([run], output, ["eval", "loss"])


def test_mistakes_are_one_line(tmp_path):
    run, output = make(tmp_path / "one", steps=(), eval_steps=()), str(tmp_path / "p.png")
    for what, x, message in (
        (["loss"], "steps", "nothing to draw"),
        (["los"], "steps", "Did you mean 'loss'"),
        (["loss"], "days", "cannot plot 'days'"),
    ):
        with pytest.raises(UserError, match=message) as error:
            plot([run], output, what, x=x)
        assert "\n" not in str(error.value)
