"""Scores of the benchmarks, by hand."""

import pytest

from moe_jax.data.tasks.glue import (
    EXPERT_CHOICE_TASKS,
    expert_choice_score,
    glue_score,
    super_glue_score,
)
from moe_jax.data.tasks.glue.benchmark_scores import main_figures
from moe_jax.errors import UserError

GLUE = {
    "glue_cola_v002": {"matthews_corrcoef": 40.0, "accuracy": 99.0, "unparsed": 1.0},
    "glue_sst2_v002": {"accuracy": 90.0, "unparsed": 0.0},
    "glue_mrpc_v002": {"f1": 88.0, "accuracy": 84.0, "unparsed": 0.0},  # 86
    "glue_stsb_v002": {"pearson_corrcoef": 80.0, "spearman_corrcoef": 78.0},  # 79
    "glue_qqp_v002": {"f1": 70.0, "accuracy": 90.0},  # 80
    "glue_qnli_v002": {"accuracy": 91.0},
    "glue_rte_v002": {"accuracy": 60.0},
    "glue_mnli_v002": {"accuracy": 1.0},  # The same rows as mnli_matched; not counted.
    "glue_mnli_matched_v002": {"accuracy": 85.0},
    "glue_mnli_mismatched_v002": {"accuracy": 83.0},  # 84 together
    "glue_wnli_v002": {"accuracy": 56.0},
}
SUPER_GLUE = {
    "super_glue_boolq_v102": {"accuracy": 80.0},
    "super_glue_cb_v102": {"mean_3class_f1": 70.0, "accuracy": 90.0},  # 80
    "super_glue_copa_v102": {"accuracy": 60.0},
    "super_glue_multirc_v102": {"f1": 70.0, "exact_match": 20.0},  # 45
    "super_glue_record_v102": {"f1": 71.0, "em": 69.0},  # 70
    "super_glue_rte_v102": {"accuracy": 65.0},
    "super_glue_wic_v102": {"accuracy": 66.0},
    "super_glue_wsc_v102_simple_eval": {"accuracy": 74.0},
    "super_glue_axb_v102": {"matthews_corrcoef": 3.0},  # A diagnostic: not counted.
}


def test_glue_score():
    # (40 + 90 + 86 + 79 + 80 + 91 + 60 + 84) / 8, and with WNLI's 56 among nine.
    assert glue_score(GLUE) == pytest.approx(610 / 8)
    assert glue_score(GLUE, wnli=True) == pytest.approx(666 / 9)


def test_super_glue_score():
    # (80 + 80 + 60 + 45 + 70 + 65 + 66 + 74) / 8
    assert super_glue_score(SUPER_GLUE) == pytest.approx(540 / 8)


def test_expert_choice_score():
    figures = {task: {"accuracy": 50.0 + i} for i, task in enumerate(EXPERT_CHOICE_TASKS)}
    figures["glue_cola_v002"]["matthews_corrcoef"] = -100.0
    assert expert_choice_score(figures) == pytest.approx(55.0)


@pytest.mark.parametrize(
    ("score", "figures", "needed"),
    [
        (glue_score, GLUE, set(GLUE) - {"glue_wnli_v002", "glue_mnli_v002"}),
        (super_glue_score, SUPER_GLUE, set(SUPER_GLUE) - {"super_glue_axb_v102"}),
        (
            expert_choice_score,
            {task: {"accuracy": 1.0} for task in EXPERT_CHOICE_TASKS},
            set(EXPERT_CHOICE_TASKS),
        ),
    ],
)
def test_a_missing_task_or_figure_is_named(score, figures, needed):
    for task in figures:
        less = {name: value for name, value in figures.items() if name != task}
        if task not in needed:
            assert score(less) == score(figures)
            continue
        with pytest.raises(UserError, match=f"needs the figures of {task}"):
            score(less)
        with pytest.raises(UserError, match=f"needs .* of {task}, which has unparsed"):
            score({**less, task: {"unparsed": 0.0}})


@pytest.mark.parametrize(
    ("task", "figures", "main"),
    [
        ("glue_mrpc_v002", ("f1", "accuracy", "unparsed"), ("f1", "accuracy")),
        ("glue_cola_v002", ("matthews_corrcoef", "accuracy"), ("matthews_corrcoef",)),
        ("super_glue_record_v102", ("em", "f1", "unparsed"), ("f1", "em")),
        ("my_task", ("accuracy", "loss", "unparsed"), ("accuracy",)),
        ("squad_v010_allanswers", ("em", "f1"), ("em", "f1")),
        (
            "cnn_dailymail_v002",
            ("rouge1", "rouge2", "rougeLsum"),
            ("rouge1", "rouge2", "rougeLsum"),
        ),
        ("glue_ax_v002", (), ()),
    ],
)
def test_main_figures(task, figures, main):
    assert main_figures(task, figures) == main
