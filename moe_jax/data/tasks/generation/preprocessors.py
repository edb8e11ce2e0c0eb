"""Preprocessors of the generation tasks, in TensorFlow operations.

Question answering, summarisation and translation have the formats of T5 (Raffel et al. 2020,
arXiv 1910.10683, appendix D; t5 0.9.4), dialogue a similar one. Each preprocessor takes a
data set of examples as in TensorFlow Datasets.
"""

from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

Preprocessor = Callable[[tf.data.Dataset], tf.data.Dataset]


def _map_examples(convert: Callable[[Mapping[str, Any]], dict[str, tf.Tensor]]) -> Preprocessor:
    """Returns the preprocessor that maps every example with `convert`."""
    return lambda dataset: dataset.map(convert, num_parallel_calls=tf.data.AUTOTUNE)


def _spaced(text: tf.Tensor) -> tf.Tensor:
    """Puts spaces around ASCII punctuation, and one space for runs of white space."""
    text = tf.strings.regex_replace(text, r"([[:punct:]])", r" \1 ")
    return tf.strings.regex_replace(text, r"\s+", " ")


def question_answering(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Makes `question: Q context: C` and the first correct answer, with all in `answers`.

    T5's `squad` preprocessor: spaces surround punctuation in question, context and answers.

    Args:
        dataset: examples of SQuAD 1.1: question, context, answers/text.
    """

    def convert(example: Mapping[str, Any]) -> dict[str, tf.Tensor]:
        answers = _spaced(example["answers"]["text"])
        checks = [tf.debugging.assert_positive(tf.size(answers), "a question has no answers")]
        parts = ["question:", _spaced(example["question"]), "context:", _spaced(example["context"])]
        inputs = tf.strings.regex_replace(tf.strings.join(parts, separator=" "), r"\s+", " ")
        with tf.control_dependencies(checks):
            return {"inputs": inputs, "targets": tf.identity(answers)[0], "answers": answers}

    return _map_examples(convert)(dataset)


def summarization(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Makes `summarize: ARTICLE` and the highlights: T5's `summarize` preprocessor.

    Args:
        dataset: examples of CNN/DailyMail: article, highlights (one a line).
    """

    def convert(example: Mapping[str, Any]) -> dict[str, tf.Tensor]:
        inputs = tf.strings.join(["summarize: ", example["article"]])
        return {"inputs": inputs, "targets": example["highlights"]}

    return _map_examples(convert)(dataset)


def translation(source: tuple[str, str], target: tuple[str, str]) -> Preprocessor:
    """Returns the preprocessor to `translate German to English: TEXT` and the translation.

    T5's `translate` preprocessor.

    Args:
        source: feature and English name of the source language: ("de", "German").
        target: the same of the target language.
    """

    def convert(example: Mapping[str, Any]) -> dict[str, tf.Tensor]:
        prefix = f"translate {source[1]} to {target[1]}: "
        return {
            "inputs": tf.strings.join([prefix, example[source[0]]]),
            "targets": example[target[0]],
        }

    return _map_examples(convert)


def dialogue(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Makes an example of each turn but the first, to be predicted from the turns before it.

    `soda narrative: N dialogue: Ann: T1 Ben: T2 Ann:` and `T3`. T5 has no such task. An example
    for each reply gives each the probability p(turn | turns before), whose product is what DialoGPT
    trains on (Zhang et al. 2020, arXiv 1911.00536, eq. 1); that the narrative stands before the
    turns is from SODA's own model (Kim et al. 2023, arXiv 2212.10465). Names instead of an
    end-of-turn token need no special token, and the last name identifies the speaker.

    Args:
        dataset: dialogues: narrative, and of each turn the `speakers` and the `dialogue`.
    """

    def replies(example: Mapping[str, Any]) -> tf.data.Dataset:
        speakers, turns = example["speakers"], example["dialogue"]
        checks = [
            tf.debugging.assert_equal(
                tf.size(speakers), tf.size(turns), "a dialogue has not one speaker for each turn"
            )
        ]
        with tf.control_dependencies(checks):
            spoken = tf.strings.join([speakers, turns], separator=": ")

        def reply(turn: tf.Tensor) -> dict[str, tf.Tensor]:
            history = tf.strings.reduce_join(spoken[:turn], separator=" ")
            parts = ["soda narrative:", example["narrative"], "dialogue:", history, speakers[turn]]
            inputs = tf.strings.join([tf.strings.join(parts, separator=" "), ":"])
            return {"inputs": inputs, "targets": turns[turn]}

        return tf.data.Dataset.range(1, tf.size(turns, out_type=tf.int64)).map(reply)

    return dataset.flat_map(replies)
