"""How rows of generation tasks become two texts, in TensorFlow operations.

Question answering, summarisation and translation have the forms of T5 (Raffel et al. 2020,
arXiv 1910.10683, appendix D; t5 0.9.4), dialogue one of the same kind. Each function takes a
data set of rows as TensorFlow Datasets has them.
"""

from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

Preprocessor = Callable[[tf.data.Dataset], tf.data.Dataset]


def _each(convert: Callable[[Mapping[str, Any]], dict[str, tf.Tensor]]) -> Preprocessor:
    """Returns the function that maps a data set's rows with `convert`."""
    return lambda dataset: dataset.map(convert, num_parallel_calls=tf.data.AUTOTUNE)


def _spaced(text: tf.Tensor) -> tf.Tensor:
    """Returns texts with spaces around ASCII punctuation and no run of white space."""
    text = tf.strings.regex_replace(text, r"([[:punct:]])", r" \1 ")
    return tf.strings.regex_replace(text, r"\s+", " ")


def question_answering(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Returns `question: Q context: C` and the first right answer, with all in `answers`.

    T5's `squad` preprocessor: punctuation stands apart in question, context and answers.

    Args:
        dataset: rows of SQuAD 1.1: question, context, answers/text.
    """

    def convert(row: Mapping[str, Any]) -> dict[str, tf.Tensor]:
        answers = _spaced(row["answers"]["text"])
        checks = [tf.debugging.assert_positive(tf.size(answers), "a question has no answers")]
        parts = ["question:", _spaced(row["question"]), "context:", _spaced(row["context"])]
        inputs = tf.strings.regex_replace(tf.strings.join(parts, separator=" "), r"\s+", " ")
        with tf.control_dependencies(checks):
            return {"inputs": inputs, "targets": tf.identity(answers)[0], "answers": answers}

    return _each(convert)(dataset)


def summarization(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Returns `summarize: ARTICLE` and the highlights: T5's `summarize` preprocessor.

    Args:
        dataset: rows of CNN/DailyMail: article, highlights (one a line).
    """

    def convert(row: Mapping[str, Any]) -> dict[str, tf.Tensor]:
        inputs = tf.strings.join(["summarize: ", row["article"]])
        return {"inputs": inputs, "targets": row["highlights"]}

    return _each(convert)(dataset)


def translation(source: tuple[str, str], target: tuple[str, str]) -> Preprocessor:
    """Returns the function to `translate German to English: TEXT` and the translation.

    T5's `translate` preprocessor.

    Args:
        source: field and English name of the language translated from: ("de", "German").
        target: the same of the language translated to.
    """

    def convert(row: Mapping[str, Any]) -> dict[str, tf.Tensor]:
        prefix = f"translate {source[1]} to {target[1]}: "
        return {"inputs": tf.strings.join([prefix, row[source[0]]]), "targets": row[target[0]]}

    return _each(convert)


def dialogue(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Returns a row for each turn but the first, to be told from all that was said before.

    `soda narrative: N dialogue: Ann: T1 Ben: T2 Ann:` and `T3`. T5 has no such task. A row for
    each reply gives each the probability p(turn | turns before), whose product is what DialoGPT
    trains on (Zhang et al. 2020, arXiv 1911.00536, eq. 1); that the narrative stands before the
    turns is from SODA's own model (Kim et al. 2023, arXiv 2212.10465). Names instead of an
    end-of-turn token need nothing special of the vocabulary, and the last name says who speaks.

    Args:
        dataset: dialogues: narrative, and of each turn the `speakers` and the `dialogue`.
    """

    def replies(row: Mapping[str, Any]) -> tf.data.Dataset:
        speakers, turns = row["speakers"], row["dialogue"]
        checks = [
            tf.debugging.assert_equal(
                tf.size(speakers), tf.size(turns), "a dialogue has not one speaker for each turn"
            )
        ]
        with tf.control_dependencies(checks):
            said = tf.strings.join([speakers, turns], separator=": ")

        def reply(turn: tf.Tensor) -> dict[str, tf.Tensor]:
            history = tf.strings.reduce_join(said[:turn], separator=" ")
            parts = ["soda narrative:", row["narrative"], "dialogue:", history, speakers[turn]]
            inputs = tf.strings.join([tf.strings.join(parts, separator=" "), ":"])
            return {"inputs": inputs, "targets": turns[turn]}

        return tf.data.Dataset.range(1, tf.size(turns, out_type=tf.int64)).map(reply)

    return dataset.flat_map(replies)
