"""Samples are told apart, and what comes next works on the run's data."""

import shlex

import pytest

from moe_jax.commands.console import make_console
from moe_jax.commands.samples import next_commands, print_samples, print_stream
from moe_jax.data.config import DataConfig


def test_several_samples_are_numbered_and_apart(capsys):
    print_samples(make_console(), "The whale", [" swam.", " sang.\nLoud."], are_answers=False)
    lines = capsys.readouterr().out.splitlines()
    first, second = ["--- 1 of 2 ---", "The whale swam."], ["--- 2 of 2 ---", "The whale sang."]
    assert lines == [*first, "", *second, "Loud."]


def test_a_single_sample_is_the_text_alone(capsys):
    print_samples(make_console(), "The whale", [" swam [/red] 1."], are_answers=False)
    assert capsys.readouterr().out == "The whale swam [/red] 1.\n"


def test_answers_are_apart_from_their_question(capsys):
    print_samples(make_console(), "sst2 sentence: fine", ["positive", "good"], are_answers=True)
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["question: sst2 sentence: fine", "answer 1: positive", "answer 2: good"]
    print_samples(make_console(), "sst2 sentence: fine", ["positive"], are_answers=True)
    assert "\nanswer: positive\n" in capsys.readouterr().out


@pytest.mark.parametrize("is_answer", [True, False])
def test_a_streamed_text_is_printed_as_a_whole_one(capsys, is_answer):
    pieces = (" swam [/red]", iter([" 1.\nIt", " sang."]))
    text = print_stream(make_console(), "The whale", pieces, is_answer)
    streamed = capsys.readouterr().out
    assert text == " swam [/red] 1.\nIt sang."
    print_samples(make_console(), "The whale", [text], is_answer)
    assert streamed == capsys.readouterr().out


@pytest.mark.parametrize(
    ("task", "prompt", "third"),
    [
        ("embedded", "Call me", ["train", "--gin_file=runs/quickstart.gin"]),
        ("text:own.txt", "it's", ["plot", "my run"]),
        ("glue_sst2", "sst2 sentence: it 's fine", ["plot", "my run"]),
    ],
)
def test_next_commands_fit_the_data(task, prompt, third):
    lines = next_commands("bin/moe-jax", "my run", DataConfig(task=task), prompt)
    generate, evaluate, last = map(shlex.split, lines)
    assert generate == [
        "bin/moe-jax",
        "generate",
        "--checkpoint=my run",
        f"--prompt={prompt}",
    ]
    assert evaluate == ["bin/moe-jax", "eval", "--checkpoint=my run"]
    assert last[1:3] == third


def test_without_a_known_prompt_none_is_made_up():
    first, *_ = next_commands("moe-jax", "run", DataConfig(task="c4"), "")
    assert first == "moe-jax generate --checkpoint=run"
