"""The tasks of GLUE (Wang et al. 2018, arXiv 1804.07461): features of the input, and metrics.

Features stand in the order of their names, as in T5. T5's `glue_utils` has no mixing rate for WNLI.
"""

from moe_jax.data.tasks.glue.postprocessors import string_to_float, wsc_simple
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
from moe_jax.data.tasks.glue.text_formats import SIMILARITIES, similarity
from moe_jax.data.tasks.glue.winograd_nli import winograd_nli
from moe_jax.data.tasks.metrics import (
    accuracy,
    f1_invalid_as_wrong,
    matthews,
    pearson,
    spearman,
)
from moe_jax.data.tasks.task_definition import MetricFn

_PAIR = ("sentence1", "sentence2")
_ACCURACY = (accuracy,)
_F1 = (f1_invalid_as_wrong, accuracy)

# TFDS has two validation and two test splits of MNLI. As in T5 they are tasks of their own too.
_MNLI_SPLITS = {
    "train": "train",
    "validation": "validation_matched",
    "test": "test_matched",
    "validation_matched": "validation_matched",
    "validation_mismatched": "validation_mismatched",
    "test_matched": "test_matched",
    "test_mismatched": "test_mismatched",
}


_glue = benchmark_task_builder("glue", "v002")


def _mnli(
    config: str, splits: Splits, metric_fns: tuple[MetricFn, ...] = _ACCURACY
) -> FormattedTask:
    """Builds a task in the format of MNLI, which the diagnostic set AX shares."""
    features = ("hypothesis", "premise")
    return classification_task(
        f"glue_{config}_v002", f"glue/{config}", "mnli", features, metric_fns, splits
    )


TASKS: tuple[FormattedTask, ...] = (
    # T5 evaluates CoLA by Matthews' correlation alone.
    _glue("cola", ("sentence",), (matthews, accuracy)),
    _glue("sst2", ("sentence",), _ACCURACY),
    _glue("mrpc", _PAIR, _F1),
    _glue("qqp", ("question1", "question2"), _F1),
    make_task(
        "glue_stsb_v002",
        "glue/stsb",
        similarity(),
        Evaluation((pearson, spearman), string_to_float, SIMILARITIES),
    ),
    _mnli("mnli", _MNLI_SPLITS),
    _mnli("mnli_mismatched", SPLITS[1:]),
    _mnli("mnli_matched", SPLITS[1:]),
    _glue("qnli", ("question", "sentence"), _ACCURACY),
    _glue("rte", _PAIR, _ACCURACY),
    _glue("wnli", _PAIR, _ACCURACY),
    # WNLI in the format of WSC, to evaluate models that were trained on WSC.
    make_task(
        "glue_wnli_v002_simple_eval",
        "glue/wnli",
        winograd_nli(),
        Evaluation(_ACCURACY, wsc_simple),
        splits=("validation", "test"),
        targets_length=NOUN_LENGTH,
    ),
    # The labels of AX are not published, so it has no metrics.
    _mnli("ax", ("test",), metric_fns=()),
)
