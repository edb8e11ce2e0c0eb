"""Metrics of text-to-text tasks: `metric(targets, predictions) -> figures`.

Both arguments are lists, postprocessed, of equal length; figures are in percent and have T5's
names. scikit-learn, SciPy, sacreBLEU and rouge_score are imported when a metric is called.
"""

from moe_jax.data.tasks.metrics.bleu_rouge import bleu, bleu_signature, rouge
from moe_jax.data.tasks.metrics.checks import unparsed
from moe_jax.data.tasks.metrics.classification import (
    accuracy,
    f1_invalid_as_wrong,
    matthews,
    mean_multiclass_f1,
    multirc_f1_over_all_answers,
)
from moe_jax.data.tasks.metrics.correlation import pearson, spearman
from moe_jax.data.tasks.metrics.question_answering import multirc_exact_match, record_em_f1, squad

__all__ = [
    "accuracy",
    "bleu",
    "bleu_signature",
    "f1_invalid_as_wrong",
    "matthews",
    "mean_multiclass_f1",
    "multirc_exact_match",
    "multirc_f1_over_all_answers",
    "pearson",
    "record_em_f1",
    "rouge",
    "spearman",
    "squad",
    "unparsed",
]
