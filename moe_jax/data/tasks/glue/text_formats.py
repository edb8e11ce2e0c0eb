"""Text formats of GLUE and SuperGLUE examples, in TensorFlow operations.

The formats are those of T5 (Raffel et al. 2020, arXiv 1910.10683, appendix D; t5 0.9.4): the
name of the benchmark, then every feature as `name: text`; the target is the name of the label.
They convert one example, eagerly or inside `Dataset.map`.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from moe_jax.data.dataset_info import DATASETS

# An example of TensorFlow Datasets: tensors, or dictionaries of them, by feature.
Example = Mapping[str, Any]

# Types of features: a text, a list of texts, the index of a class or word, a score.
TEXT = tf.TensorSpec([], tf.string)
TEXTS = tf.TensorSpec([None], tf.string)
NUMBER = tf.TensorSpec([], tf.int64)
SCORE = tf.TensorSpec([], tf.float32)

# The target of an example whose label is withheld.
NO_LABEL = "<unk>"

# The targets of STS-B: 0.0, 0.2, ..., 5.0.
SIMILARITIES = tuple(f"{fifths / 5:.1f}" for fifths in range(26))


@dataclasses.dataclass(frozen=True)
class TextFormat:
    """Conversion of the examples of one data set to texts.

    Attributes:
        features: names and types of the features that the two texts are made of.
        convert: from an example to `inputs` and `targets`.
        predicate: selects the examples that are used; None for all.
        metric_features: from an example to the features that metrics need beside its texts.
        read_by_metrics: names of the features that `metric_features` reads.
        one_to_many: whether `convert` makes several texts of an example, along a first axis.
    """

    features: Mapping[str, tf.TensorSpec]
    convert: Callable[[Example], dict[str, tf.Tensor]]
    predicate: Callable[[Example], tf.Tensor] | None = None
    metric_features: Callable[[Example], dict[str, tf.Tensor]] = lambda example: {}
    read_by_metrics: tuple[str, ...] = ()
    one_to_many: bool = False


def classification(
    prefix: str, features: Mapping[str, str], labels: tuple[str, ...], *, markup: bool = False
) -> TextFormat:
    """Returns the format `prefix name: text name: text` with the name of the label as target.

    Args:
        prefix: T5's name of the benchmark.
        features: names in the text, in order, to features of the example. T5 sorts them by name
            except for MultiRC and WiC.
        labels: the name of each label; a withheld label, -1, becomes `<unk>`.
        markup: replace MultiRC's HTML: `<br>` by a space, `<b>` and `</b>` by nothing.
    """

    def convert(example: Example) -> dict[str, tf.Tensor]:
        parts = [prefix]
        for name, feature in features.items():
            parts += [f"{name}:", example[feature]]
        inputs = tf.strings.join(parts, separator=" ")
        if markup:
            inputs = tf.strings.regex_replace(inputs, "<br>", " ")
            inputs = tf.strings.regex_replace(inputs, "</?b>", "")
        label = example["label"]
        known = (label >= -1) & (label < len(labels))
        tf.debugging.Assert(known, [f"the label is none of {', '.join(labels)}:", label])
        return {"inputs": inputs, "targets": tf.gather([NO_LABEL, *labels], label + 1)}

    return TextFormat({**dict.fromkeys(features.values(), TEXT), "label": NUMBER}, convert)


def multirc() -> TextFormat:
    """Returns MultiRC's format: a question on a paragraph, and an answer to be judged.

    As in T5 `idx/question` is the number of the question, by which exact match groups answers.
    """
    names = ("question", "answer", "paragraph")
    labels = DATASETS["super_glue/multirc"].labels
    basic = classification("multirc", {n: n for n in names}, labels, markup=True)
    return dataclasses.replace(
        basic,
        metric_features=lambda example: {"idx/question": example["idx"]["question"]},
        read_by_metrics=("idx",),
    )


def similarity() -> TextFormat:
    """Returns STS-B's format: the score of two sentences, rounded to the nearest 0.2, as text."""

    def convert(example: Example) -> dict[str, tf.Tensor]:
        parts = ["stsb sentence1:", example["sentence1"], "sentence2:", example["sentence2"]]
        fifths = tf.round(tf.cast(example["label"], tf.float32) * 5)
        score = tf.strings.as_string(fifths / 5, precision=1)
        return {"inputs": tf.strings.join(parts, separator=" "), "targets": score}

    return TextFormat({"sentence1": TEXT, "sentence2": TEXT, "label": SCORE}, convert)


def record() -> TextFormat:
    """Returns ReCoRD's format: a query in which an entity is to be filled in.

    One text for each correct answer, or one with `<unk>` if there is none. Highlights of the
    article become sentences of its passage. The metrics get all answers.
    """

    def convert(example: Example) -> dict[str, tf.Tensor]:
        passage = tf.strings.regex_replace(example["passage"], r"([.?!\"'])\n@highlight\n", r"\1 ")
        passage = tf.strings.regex_replace(passage, r"\n@highlight\n", ". ")
        entities = tf.strings.reduce_join(example["entities"], separator=", ")
        parts = ["record query:", example["query"], "entities:", entities, "passage:", passage]
        count = tf.maximum(tf.size(example["answers"]), 1)
        inputs = tf.repeat(tf.strings.join(parts, separator=" "), count)
        # <unk> is the last target, which is dropped if there are answers.
        return {"inputs": inputs, "targets": tf.concat([example["answers"], [NO_LABEL]], 0)[:count]}

    def metric_features(example: Example) -> dict[str, tf.Tensor]:
        return {
            "answers": example["answers"],
            "entities": example["entities"],
            "idx/passage": example["idx"]["passage"],
            "idx/query": example["idx"]["query"],
        }

    features = {"passage": TEXT, "query": TEXT, "entities": TEXTS, "answers": TEXTS}
    return TextFormat(
        features,
        convert,
        metric_features=metric_features,
        read_by_metrics=("answers", "idx"),
        one_to_many=True,
    )
