"""SuperGLUE (Wang et al. 2019, arXiv 1905.00537) and DPR: fields, labels, metrics and sizes.

Fields stand in the order of their names, as in T5, but for MultiRC and WiC; labels in the order
of TensorFlow Datasets. Sizes are those of T5's `glue_utils`.
"""

from collections.abc import Mapping

from moe_jax.data.tasks.glue import postprocessors
from moe_jax.data.tasks.glue.coreference import dpr, wsc
from moe_jax.data.tasks.glue.task_builder import (
    NOUN_LENGTH,
    SPLITS,
    Splits,
    Task,
    labelled,
    of_benchmark,
    task,
)
from moe_jax.data.tasks.glue.text_formats import multirc, record
from moe_jax.data.tasks.metrics import (
    accuracy,
    matthews,
    mean_multiclass_f1,
    multirc_exact_match,
    multirc_f1_over_all_answers,
    record_em_f1,
)
from moe_jax.data.tasks.task_definition import MetricFn

VERSION = "1.0.2"
DPR_VERSION = "1.1.0"

_PREMISE = ("hypothesis", "premise")
_TRUTH = ("False", "True")
_CHOICES = ("choice1", "choice2")
_ACCURACY = (accuracy,)


_super_glue = of_benchmark("super_glue", "v102", VERSION)


def _rte(
    config: str,
    metric: MetricFn,
    num_train_examples: int = 0,
    fields: Mapping[str, str] | tuple[str, ...] = _PREMISE,
    splits: Splits = ("test",),
) -> Task:
    """Returns a task in the form of RTE, which the diagnostic sets AX-b and AX-g have too."""
    return labelled(
        f"super_glue_{config}_v102",
        f"super_glue/{config}:{VERSION}",
        fields,
        ("entailment", "not_entailment"),
        (metric,),
        num_train_examples,
        prefix="rte",
        splits=splits,
    )


_SENTENCE_TASKS: tuple[Task, ...] = (
    _super_glue("boolq", ("passage", "question"), _TRUTH, _ACCURACY, 9_427),
    _super_glue(
        "cb",
        _PREMISE,
        ("entailment", "contradiction", "neutral"),
        (mean_multiclass_f1(num_classes=3), accuracy),
        250,
    ),
    _super_glue("copa", (*_CHOICES, "premise", "question"), _CHOICES, _ACCURACY, 400),
    task(
        "super_glue_multirc_v102",
        f"super_glue/multirc:{VERSION}",
        multirc(),
        postprocessors.multirc,
        (multirc_f1_over_all_answers, multirc_exact_match),
        27_243,
    ),
    task(
        "super_glue_record_v102",
        f"super_glue/record:{VERSION}",
        record(),
        postprocessors.record,
        (record_em_f1,),
        138_854,
        targets_length=NOUN_LENGTH,
    ),
    _rte("rte", accuracy, 2_490, splits=SPLITS),
    _super_glue("wic", ("sentence1", "sentence2", "word"), _TRUTH, _ACCURACY, 5_428),
    # T5 has no metrics for the two diagnostic sets; these are SuperGLUE's.
    _rte("axb", matthews, fields={"hypothesis": "sentence2", "premise": "sentence1"}),
    _rte("axg", accuracy),
)

_NOUN_TASKS: tuple[Task, ...] = (
    # Of WSC's 554 training rows, 259 give the right noun.
    task(
        "super_glue_wsc_v102_simple_train",
        f"super_glue/wsc.fixed:{VERSION}",
        wsc(correct_only=True),
        None,
        (),
        259,
        splits=("train",),
        targets_length=NOUN_LENGTH,
    ),
    task(
        "super_glue_wsc_v102_simple_eval",
        f"super_glue/wsc.fixed:{VERSION}",
        wsc(correct_only=False),
        postprocessors.wsc_simple,
        _ACCURACY,
        splits=("validation", "test"),
        targets_length=NOUN_LENGTH,
    ),
    task(
        "dpr_v001_simple",
        f"definite_pronoun_resolution:{DPR_VERSION}",
        dpr(),
        None,
        _ACCURACY,
        1_322,
        splits=("train", "test"),
        targets_length=NOUN_LENGTH,
    ),
)

TASKS: tuple[Task, ...] = _SENTENCE_TASKS + _NOUN_TASKS
