"""Yardsticks of a task with classes that need no language model.

A fine-tuned model that is not above them has learned nothing of the task that a count of words does
not know.
"""

import collections
from collections.abc import Sequence

import numpy as np


def most_frequent(targets: Sequence[str]) -> str:
    """Returns the most frequent target; of equally frequent ones the first in the alphabet.

    Raises:
        ValueError: without targets.
    """
    if not targets:
        raise ValueError("the most frequent of no targets")
    counts = collections.Counter(targets)
    return min(counts, key=lambda target: (-counts[target], target))


def bag_of_words(
    train_inputs: Sequence[str], train_targets: Sequence[str], inputs: Sequence[str]
) -> list[str]:
    """Predicts targets by logistic regression on the words and the pairs of words of a text.

    Features are TF-IDF weights (with the logarithm of the counts) of words and pairs of words that
    occur in two training texts or more; the regression has scikit-learn's L2 penalty with C = 1.

    Args:
        train_inputs: texts of the training split.
        train_targets: their classes.
        inputs: texts to predict the classes of.

    Returns:
        one class per text; the only class if training has no other.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    classes = sorted(set(train_targets))
    if len(classes) < 2:
        return [classes[0]] * len(inputs)
    # The pattern keeps words of one letter, such as negations and numbers of choices.
    vectorizer = TfidfVectorizer(
        ngram_range=(1, 2), min_df=2, sublinear_tf=True, token_pattern=r"\b\w+\b", dtype=np.float32
    )
    try:
        features = vectorizer.fit_transform(train_inputs)
    except ValueError:  # No word occurs twice.
        return [most_frequent(train_targets)] * len(inputs)
    model = LogisticRegression(max_iter=1000)
    model.fit(features, list(train_targets))
    return [str(found) for found in model.predict(vectorizer.transform(inputs))]
