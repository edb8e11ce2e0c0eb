"""The tasks of SuperGLUE (Wang et al. 2019, arXiv 1905.00537) and DPR: features and metrics.

Features stand in the order of their names, as in T5, but for MultiRC and WiC.
"""

from collections.abc import Mapping

from moe_jax.data.dataset_info import DATASETS
from moe_jax.data.tasks.glue import postprocessors
from moe_jax.data.tasks.glue.task_builder import (
    NOUN_LENGTH,
    SPLITS,
    Evaluation,
    FormattedTask,
    Splits,
    benchmark_task_builder,
    classification_task,
    make_task,
)
from moe_jax.data.tasks.glue.text_formats import multirc, record
from moe_jax.data.tasks.glue.wsc import dpr, wsc
from moe_jax.data.tasks.metrics import (
    accuracy,
    matthews,
    mean_multiclass_f1,
    multirc_exact_match,
    multirc_f1_over_all_answers,
    record_em_f1,
)
from moe_jax.data.tasks.task_definition import MetricFn

_PREMISE = ("hypothesis", "premise")
_ACCURACY = (accuracy,)


_super_glue = benchmark_task_builder("super_glue", "v102")


def _rte(
    config: str,
    metric_fn: MetricFn,
    features: Mapping[str, str] | tuple[str, ...] = _PREMISE,
    splits: Splits = ("test",),
) -> FormattedTask:
    """Builds a task in the format of RTE, which the diagnostic sets AX-b and AX-g share."""
    name, dataset = f"super_glue_{config}_v102", f"super_glue/{config}"
    return classification_task(name, dataset, "rte", features, (metric_fn,), splits)


_SENTENCE_TASKS: tuple[FormattedTask, ...] = (
    _super_glue("boolq", ("passage", "question"), _ACCURACY),
    _super_glue("cb", _PREMISE, (mean_multiclass_f1(num_classes=3), accuracy)),
    _super_glue("copa", ("choice1", "choice2", "premise", "question"), _ACCURACY),
    make_task(
        "super_glue_multirc_v102",
        "super_glue/multirc",
        multirc(),
        Evaluation(
            (multirc_f1_over_all_answers, multirc_exact_match),
            postprocessors.multirc,
            classes=DATASETS["super_glue/multirc"].labels,
        ),
    ),
    make_task(
        "super_glue_record_v102",
        "super_glue/record",
        record(),
        Evaluation((record_em_f1,), postprocessors.record, choices_feature="entities"),
        targets_length=NOUN_LENGTH,
    ),
    _rte("rte", accuracy, splits=SPLITS),
    _super_glue("wic", ("sentence1", "sentence2", "word"), _ACCURACY),
    # T5 has no metrics for the two diagnostic sets; these are SuperGLUE's.
    _rte("axb", matthews, features={"hypothesis": "sentence2", "premise": "sentence1"}),
    _rte("axg", accuracy),
)

_NOUN_TASKS: tuple[FormattedTask, ...] = (
    make_task(
        "super_glue_wsc_v102_simple_train",
        "super_glue/wsc.fixed",
        wsc(correct_only=True),
        Evaluation(),
        splits=("train",),
        targets_length=NOUN_LENGTH,
    ),
    make_task(
        "super_glue_wsc_v102_simple_eval",
        "super_glue/wsc.fixed",
        wsc(correct_only=False),
        Evaluation(_ACCURACY, postprocessors.wsc_simple),
        splits=("validation", "test"),
        targets_length=NOUN_LENGTH,
    ),
    make_task(
        "dpr_v001_simple",
        "definite_pronoun_resolution",
        dpr(),
        Evaluation(_ACCURACY),
        splits=("train", "test"),
        targets_length=NOUN_LENGTH,
    ),
)

TASKS: tuple[FormattedTask, ...] = _SENTENCE_TASKS + _NOUN_TASKS
