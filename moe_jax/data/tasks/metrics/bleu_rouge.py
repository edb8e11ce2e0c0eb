"""BLEU by sacreBLEU, and ROUGE by rouge_score."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from moe_jax.data.tasks.metrics.checks import checked

ROUGE_TYPES = ("rouge1", "rouge2", "rougeLsum")
# T5 leaves the resampling of its ROUGE to NumPy's global state; here the same rows always give
# the same figures.
ROUGE_SEED = 0


def _sacrebleu() -> Any:
    from sacrebleu.metrics import BLEU

    # T5's settings. "intl" splits at Unicode punctuation and symbols (mteval-v14, international);
    # zero n-gram counts are smoothed exponentially (NIST); case counts.
    return BLEU(
        tokenize="intl",
        smooth_method="exp",
        smooth_value=0.0,
        lowercase=False,
        force=False,
        effective_order=False,
    )


@checked
def bleu(targets: Sequence[str], predictions: Sequence[str | None]) -> Mapping[str, float]:
    """Returns the corpus BLEU of sacreBLEU (Post 2018) with T5's settings and one reference.

    The tokeniser is `intl`, smoothing is exponential, case counts; `bleu_signature` names them
    all. Other papers often use `13a`: figures of the two are not comparable.

    Args:
        targets: a reference for each row.
        predictions: a translation for each row; None is the empty text.
    """
    score = _sacrebleu().corpus_score([text or "" for text in predictions], [list(targets)])
    return {"bleu": score.score}


def bleu_signature() -> str:
    """Returns sacreBLEU's description of how `bleu` computes, to be given with its figures."""
    metric = _sacrebleu()
    metric.corpus_score(["a"], [["a"]])  # The number of references is known after scoring only.
    return str(metric.get_signature())


@checked
def rouge(targets: Sequence[str], predictions: Sequence[str | None]) -> Mapping[str, float]:
    r"""Returns the F-measures of ROUGE-1, ROUGE-2 and ROUGE-Lsum (Lin 2004), as T5 computes them.

    `rouge_score` without stemming. Sentences for ROUGE-Lsum end at newlines; as in T5, " . " is
    taken for " .\n", because vocabularies such as T5's turn newlines into spaces. The figures
    are the medians over 1,000 bootstrap samples of the mean over rows, as in T5: not quite the
    plain mean (0.1 away for 100 summaries), and T5's own figures if NumPy was seeded with
    `ROUGE_SEED` for them.

    Args:
        targets: a summary for each row.
        predictions: a summary for each row; None is the empty text.
    """
    from rouge_score import rouge_scorer, scoring

    scorer = rouge_scorer.RougeScorer(ROUGE_TYPES)
    aggregator = scoring.BootstrapAggregator()
    for target, prediction in zip(targets, predictions, strict=True):
        aggregator.add_scores(scorer.score(_sentences(target), _sentences(prediction or "")))
    state = np.random.get_state()
    np.random.seed(ROUGE_SEED)
    try:
        result = aggregator.aggregate()
    finally:
        np.random.set_state(state)
    return {name: 100 * result[name].mid.fmeasure for name in ROUGE_TYPES}


def _sentences(summary: str) -> str:
    return summary.replace(" . ", " .\n")
