"""Several tasks together: mixtures to train on, and the one number of a suite.

A score takes the figures of its tasks by name of task and of metric, each in percent, as the
tasks' metrics return them; other tasks and other figures do no harm.
"""

from collections.abc import Iterable, Mapping

from moe_jax.data.tasks.glue.definitions import DEFINITIONS
from moe_jax.errors import UserError

Figures = Mapping[str, Mapping[str, float]]

_GLUE = ("cola", "sst2", "mrpc", "qqp", "stsb", "mnli", "qnli", "rte", "mnli_mismatched")
_GLUE_TASKS = tuple(f"glue_{name}_v002" for name in (*_GLUE, "mnli_matched", "ax"))
_SUPER_GLUE = ("boolq", "cb", "copa", "multirc", "record", "rte", "wic", "axb", "axg")
_SUPER_GLUE_TASKS = (
    "dpr_v001_simple",
    "super_glue_wsc_v102_simple_train",
    "super_glue_wsc_v102_simple_eval",
    *(f"super_glue_{name}_v102" for name in _SUPER_GLUE),
)


def _rates(tasks: Iterable[str]) -> dict[str, int]:
    return {task: DEFINITIONS[task].num_train_examples for task in tasks}


# Tasks and rates by name of mixture: T5's `glue_v002_proportional` (without WNLI, which T5 leaves
# to the Winograd schemas) and `super_glue_v102_proportional` (with DPR). A task is drawn from in
# proportion to its training rows; one with rate 0 is evaluated only.
MIXTURES: dict[str, dict[str, int]] = {
    "glue": _rates(_GLUE_TASKS),
    "super_glue": _rates(_SUPER_GLUE_TASKS),
}

# The eleven tasks that Zhou et al. 2022 (Expert Choice routing, arXiv 2202.09368) fine-tune on,
# one at a time, all judged by accuracy.
EXPERT_CHOICE_TASKS: tuple[str, ...] = (
    "super_glue_boolq_v102",
    "super_glue_cb_v102",
    "glue_cola_v002",
    "glue_mnli_v002",
    "glue_mrpc_v002",
    "glue_qnli_v002",
    "glue_qqp_v002",
    "glue_rte_v002",
    "glue_sst2_v002",
    "super_glue_wic_v102",
    "glue_wnli_v002",
)

# What counts, by the name of the task (several are averaged). Accuracy where nothing is said.
_COUNTED: dict[str, tuple[str, ...]] = {
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


def _task_score(metrics_by_task: Figures, task: str) -> float:
    names = _COUNTED.get(task, ("accuracy",))
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
