"""GLUE (Wang et al. 2018, arXiv 1804.07461): fields, labels, metrics and sizes of its tasks.

Fields stand in the order of their names, as in T5; labels in the order of TensorFlow Datasets.
Sizes are those of T5's `glue_utils`, which leaves WNLI out. T5 read version 1.0.0 of the data;
2.0.0 has QQP from another place, and three training rows fewer of it.
"""

from moe_jax.data.tasks.glue.postprocessors import string_to_float, wsc_simple
from moe_jax.data.tasks.glue.task_builder import (
    NOUN_LENGTH,
    SPLITS,
    Splits,
    Task,
    labelled,
    of_benchmark,
    task,
)
from moe_jax.data.tasks.glue.text_formats import similarity
from moe_jax.data.tasks.glue.winograd_nli import winograd_nli
from moe_jax.data.tasks.metrics import accuracy, f1_invalid_as_wrong, matthews, pearson, spearman
from moe_jax.data.tasks.task_definition import MetricFn

VERSION = "2.0.0"

_PAIR = ("sentence1", "sentence2")
_ENTAILMENT = ("entailment", "not_entailment")
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


_glue = of_benchmark("glue", "v002", VERSION)


def _mnli(
    config: str,
    splits: Splits,
    metrics: tuple[MetricFn, ...] = _ACCURACY,
    num_train_examples: int = 0,
) -> Task:
    """Returns a task in the form of MNLI, which the diagnostic set AX has too."""
    return labelled(
        f"glue_{config}_v002",
        f"glue/{config}:{VERSION}",
        ("hypothesis", "premise"),
        ("entailment", "neutral", "contradiction"),
        metrics,
        num_train_examples,
        prefix="mnli",
        splits=splits,
    )


TASKS: tuple[Task, ...] = (
    # T5 judges CoLA by Matthews' correlation alone.
    _glue("cola", ("sentence",), ("unacceptable", "acceptable"), (matthews, accuracy), 8_551),
    _glue("sst2", ("sentence",), ("negative", "positive"), _ACCURACY, 67_349),
    _glue("mrpc", _PAIR, ("not_equivalent", "equivalent"), _F1, 3_668),
    _glue("qqp", ("question1", "question2"), ("not_duplicate", "duplicate"), _F1, 363_849),
    task(
        "glue_stsb_v002",
        f"glue/stsb:{VERSION}",
        similarity(),
        string_to_float,
        (pearson, spearman),
        5_749,
    ),
    _mnli("mnli", _MNLI_SPLITS, num_train_examples=392_702),
    _mnli("mnli_mismatched", SPLITS[1:]),
    _mnli("mnli_matched", SPLITS[1:]),
    _glue("qnli", ("question", "sentence"), _ENTAILMENT, _ACCURACY, 104_743),
    _glue("rte", _PAIR, _ENTAILMENT, _ACCURACY, 2_490),
    _glue("wnli", _PAIR, ("not_entailment", "entailment"), _ACCURACY, 635),
    # WNLI in the form of WSC, to evaluate what was trained on that.
    task(
        "glue_wnli_v002_simple_eval",
        f"glue/wnli:{VERSION}",
        winograd_nli(),
        wsc_simple,
        _ACCURACY,
        splits=("validation", "test"),
        targets_length=NOUN_LENGTH,
    ),
    # The labels of AX are not published, so there is nothing to measure.
    _mnli("ax", ("test",), metrics=()),
)
