"""The figure of the scores."""

import fake_finetuning

from moe_jax.finetuning import score_figure
from moe_jax.finetuning.results import summarise


def test_every_task_and_arm_is_in_it_and_its_values_in_words():
    figure = score_figure.draw(summarise(fake_finetuning.records()))
    for text in ("SST-2", "STS-B", "ec", "dense", "bag of words", "most frequent class"):
        assert f">{text}<" in figure.svg
    assert "SST-2: ec 82.0 [77.0, 87.0], dense 81.0 [74.4, 87.6]" in figure.values
    assert figure == score_figure.draw(summarise(fake_finetuning.records()))


def test_nothing_is_drawn_without_runs():
    assert score_figure.draw(summarise([fake_finetuning.plan()])) is None
