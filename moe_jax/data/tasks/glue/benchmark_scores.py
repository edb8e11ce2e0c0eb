"""Scores of GLUE, SuperGLUE and the tasks of Expert Choice routing.

A score is computed from figures by name of task and of metric, each in percent, as the tasks'
metrics return them; other tasks and figures are ignored.
"""

from collections.abc import Iterable, Mapping

from moe_jax.data.tasks.glue.mixtures import EXPERT_CHOICE_TASKS
from moe_jax.errors import UserError

Figures = Mapping[str, Mapping[str, float]]

# Figures in the score by the name of the task, averaged if there are several; others: accuracy.
_SCORED: dict[str, tuple[str, ...]] = {
    "glue_cola_v002": ("matthews_corrcoef",),
    "glue_mrpc_v002": ("f1", "accuracy"),
    "glue_qqp_v002": ("f1", "accuracy"),
    "glue_stsb_v002": ("pearson_corrcoef", "spearman_corrcoef"),
    "super_glue_cb_v102": ("mean_3class_f1", "accuracy"),
    "super_glue_multirc_v102": ("f1", "exact_match"),
    "super_glue_record_v102": ("f1", "em"),
}


def glue_score(metrics_by_task: Figures, *, wnli: bool = False) -> float:
    """Returns the mean over GLUE's tasks, both parts of MNLI being one (arXiv 1804.07461).

    Args:
        metrics_by_task: figures in percent, such as {"glue_sst2_v002": {"accuracy": 94.1}, ...}.
        wnli: counts WNLI as a ninth task, as the official leaderboard does. T5 and most others
            leave it out of the mean on the validation set.

    Raises:
        UserError: naming the task or the figure that is missing.
    """
    names = ("cola", "sst2", "mrpc", "stsb", "qqp", "qnli", "rte", *(("wnli",) if wnli else ()))
    scores = [_task_score(metrics_by_task, f"glue_{name}_v002") for name in names]
    parts = ("glue_mnli_matched_v002", "glue_mnli_mismatched_v002")
    scores.append(_mean(_task_score(metrics_by_task, part) for part in parts))
    return _mean(scores)


def super_glue_score(metrics_by_task: Figures) -> float:
    """Returns the mean over SuperGLUE's eight tasks, without diagnostics (arXiv 1905.00537).

    Args:
        metrics_by_task: figures in percent, such as {"super_glue_wic_v102": {"accuracy": 70.2}}.

    Raises:
        UserError: naming the task or the figure that is missing.
    """
    names = ("boolq", "cb", "copa", "multirc", "record", "rte", "wic")
    tasks = (*(f"super_glue_{name}_v102" for name in names), "super_glue_wsc_v102_simple_eval")
    return _mean(_task_score(metrics_by_task, task) for task in tasks)


def expert_choice_score(metrics_by_task: Figures) -> float:
    """Returns the mean accuracy over the eleven tasks of Zhou et al. 2022.

    Args:
        metrics_by_task: figures in percent, such as {"glue_cola_v002": {"accuracy": 81.0}, ...}.

    Raises:
        UserError: naming the task or the figure that is missing.
    """
    return _mean(_figure(metrics_by_task, task, "accuracy") for task in EXPERT_CHOICE_TASKS)


def main_figures(task: str, figures: Iterable[str]) -> tuple[str, ...]:
    """Returns the names of the figures whose mean is the score of a task.

    They are the benchmark's for its tasks; for others the accuracy or, without one, all figures but
    `unparsed`.

    Args:
        task: full name of the task.
        figures: names of the figures that its metrics return.
    """
    has = [name for name in figures if name != "unparsed"]
    wanted = _SCORED.get(task, ("accuracy",))
    return wanted if set(wanted) <= set(has) else tuple(has)


def _task_score(metrics_by_task: Figures, task: str) -> float:
    names = _SCORED.get(task, ("accuracy",))
    return _mean(_figure(metrics_by_task, task, name) for name in names)


def _figure(metrics_by_task: Figures, task: str, name: str) -> float:
    if task not in metrics_by_task:
        raise UserError(f"the score needs the figures of {task}, which are missing")
    if name not in metrics_by_task[task]:
        has = ", ".join(sorted(metrics_by_task[task])) or "nothing"
        raise UserError(f"the score needs {name} of {task}, which has {has}")
    return float(metrics_by_task[task][name])


def _mean(values: Iterable[float]) -> float:
    listed = list(values)
    return sum(listed) / len(listed)
