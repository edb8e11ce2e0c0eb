"""BLEU and ROUGE, by hand and against sacreBLEU and rouge_score."""

import math

import numpy as np
import pytest
import sacrebleu
from rouge_score import rouge_scorer

from moe_jax.data.tasks import metrics

WORDS = ["the", "a", "red", "blue", "house", "runs", "U.S.", "3.5", "Köln", "—", ";", "well-kept"]


def random_texts(seed, rows=20, most=15):
    rng = np.random.default_rng(seed)
    texts = [list(rng.choice(WORDS, rng.integers(4, most))) for _ in range(rows)]
    changed = [[w if rng.random() < 0.8 else rng.choice(WORDS) for w in t] for t in texts]
    return [" ".join(t) for t in texts], [" ".join(t) for t in changed]


def test_bleu_by_hand():
    # 5 words against 6: 1- to 4-gram precisions 5/5, 4/4, 3/3, 2/2 and the brevity penalty.
    figures = metrics.bleu(["one two three four five six"], ["one two three four five"])
    assert figures["bleu"] == pytest.approx(100 * math.exp(1 - 6 / 5))


@pytest.mark.parametrize("seed", range(3))
def test_bleu_against_sacrebleu_with_the_tokeniser_intl(seed):
    targets, predictions = random_texts(seed)
    value = metrics.bleu(targets, predictions)["bleu"]
    direct = sacrebleu.corpus_bleu(predictions, [targets], tokenize="intl", smooth_method="exp")
    assert value == pytest.approx(direct.score)
    assert 10 < value < 100


def test_bleu_tokenises_and_smooths_as_its_signature_says():
    signature = metrics.bleu_signature()
    for part in ("nrefs:1", "case:mixed", "eff:no", "tok:intl", "smooth:exp", "version:"):
        assert part in signature
    # 13a would leave the dash on the word; without smoothing this would be 0.
    apart, joined = ["x —red— house fell y"], ["z — red — house fell w"]
    assert metrics.bleu(apart, joined)["bleu"] > 50
    assert metrics.bleu(["a b c d"], ["a b x y"])["bleu"] > 0
    assert metrics.bleu(["A B C D"], ["a b c d"])["bleu"] == 0


def test_rouge_by_hand():
    # Words in common 3 of 4 and 3 of 3; pairs 1 of 3 and 1 of 2; the longest common
    # subsequence is "red house fell" or all three in order.
    figures = metrics.rouge(["red house tower fell"], ["red house fell"])
    assert figures["rouge1"] == pytest.approx(100 * 2 * 0.75 * 1 / 1.75)
    assert figures["rouge2"] == pytest.approx(100 * 2 * (1 / 3) * 0.5 / (1 / 3 + 0.5))
    assert figures["rougeLsum"] == pytest.approx(figures["rouge1"])


def test_rouge_does_not_stem():
    assert set(metrics.rouge(["tall towers"], ["taller tower"]).values()) == {0.0}


def test_rouge_ends_a_sentence_at_a_period_between_spaces():
    # The order of sentences does not matter to ROUGE-Lsum, but that of words in a sentence does.
    target, swapped = "red house . tall tower", "tall tower . red house"
    assert metrics.rouge([target], [swapped])["rougeLsum"] == pytest.approx(100)
    lines = metrics.rouge([target.replace(" . ", "\n")], [swapped.replace(" . ", "\n")])
    assert lines["rougeLsum"] == pytest.approx(100)
    assert metrics.rouge(["red house tall tower"], ["tall tower red house"])["rougeLsum"] < 60


def test_rouge_is_near_the_mean_over_rows_repeatable_and_leaves_random_state_alone():
    targets, predictions = random_texts(0, rows=100)
    np.random.seed(5)
    before = np.random.get_state()[1].copy()
    first = metrics.rouge(targets, predictions)
    np.testing.assert_array_equal(np.random.get_state()[1], before)
    np.random.seed(6)
    assert metrics.rouge(targets, predictions) == first
    scorer = rouge_scorer.RougeScorer(list(first))
    scores = [scorer.score(t, p) for t, p in zip(targets, predictions, strict=True)]
    for name, value in first.items():
        mean = 100 * np.mean([score[name].fmeasure for score in scores])
        assert value == pytest.approx(mean, abs=0.3)


def test_empty_predictions_score_nothing():
    for empty in ("", None):
        assert metrics.bleu(["a b c d"], [empty]) == {"bleu": 0.0}
        assert set(metrics.rouge(["a b c d"], [empty]).values()) == {0.0}
