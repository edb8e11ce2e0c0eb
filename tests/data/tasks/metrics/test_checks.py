"""Properties of every metric: messages for bad input, light imports, names of arguments."""

import inspect
import subprocess
import sys

import pytest

from moe_jax.data.tasks import metrics
from moe_jax.errors import UserError

GROUPED = {"multirc_f1_over_all_answers", "multirc_exact_match", "record_em_f1"}
NAMES = sorted(set(metrics.__all__) - {"bleu_signature", "mean_multiclass_f1"})
ALL = {name: getattr(metrics, name) for name in NAMES}
ALL["mean_f1"] = metrics.mean_multiclass_f1(3)


@pytest.mark.parametrize("name", ALL)
def test_no_rows_is_a_message_that_names_the_metric(name):
    with pytest.raises(UserError, match=f"metric {name}: there are no rows"):
        ALL[name]([], [])


@pytest.mark.parametrize("name", ALL)
def test_different_lengths_are_a_message_that_names_the_metric(name):
    with pytest.raises(UserError, match=f"metric {name}: 2 targets but 1 predictions"):
        ALL[name]([0, 1], [0])


@pytest.mark.parametrize("name", ALL)
def test_nothing_parsed_gives_finite_figures(name):
    targets, guess = [0, 1, 1], -1
    if name in GROUPED:
        targets, guess = [{"value": 1, "group": 0}] * 3, {"value": -1}
    if name in {"squad", "record_em_f1"}:
        targets, guess = [["red"]] * 3, None
    if name == "record_em_f1":
        targets, guess = [{"value": ["red"], "group": 0}] * 3, {"value": None}
    if name in {"bleu", "rouge"}:
        targets, guess = ["red house"] * 3, None
    figures = ALL[name](targets, [guess] * 3)
    expected = 100.0 if name == "unparsed" else 0.0
    if name == "matthews":  # One class predicted only.
        expected = 0.0
    assert set(figures.values()) == {expected}


@pytest.mark.parametrize("name", ALL)
def test_arguments_have_the_names_that_seqio_asks_for(name):
    assert list(inspect.signature(ALL[name]).parameters) == ["targets", "predictions"]


def test_importing_the_metrics_imports_no_library_of_metrics():
    heavy = "{'sklearn', 'scipy', 'sacrebleu', 'rouge_score', 'nltk', 'tensorflow', 't5'}"
    code = (
        f"import sys, moe_jax.data.tasks.metrics; sys.exit(str({heavy} & set(sys.modules) or ''))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stderr.strip() == "", result.stderr
