"""The mixtures of GLUE and SuperGLUE with T5's rates, and the tasks of Expert Choice routing."""

from collections.abc import Iterable

from moe_jax.data.tasks.glue.definitions import DEFINITIONS

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
# to the Winograd schemas) and `super_glue_v102_proportional` (with DPR), and WSC by itself, whose
# training and evaluation are two tasks in T5's format. A task is sampled in proportion to its
# training examples; one with rate 0 is evaluated only.
MIXTURES: dict[str, dict[str, int]] = {
    "glue": _rates(_GLUE_TASKS),
    "super_glue": _rates(_SUPER_GLUE_TASKS),
    "super_glue_wsc": _rates(task for task in _SUPER_GLUE_TASKS if "_wsc_" in task),
}

# The eleven tasks that Zhou et al. 2022 (Expert Choice routing, arXiv 2202.09368) fine-tune on,
# one at a time, all evaluated by accuracy.
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
