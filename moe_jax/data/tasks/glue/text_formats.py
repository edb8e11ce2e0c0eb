"""How a row of GLUE or SuperGLUE becomes two texts, in TensorFlow operations.

The formats are those of T5 (Raffel et al. 2020, arXiv 1910.10683, appendix D; t5 0.9.4): the
name of the benchmark, then every field as `name: text`, then the label as a word as the target.
They work on one row, eagerly or inside `Dataset.map`.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

# A row of TensorFlow Datasets: tensors, or dictionaries of them, by field.
Example = Mapping[str, Any]

# What a field holds: a text, a list of texts, the number of a class or place, a score.
TEXT = tf.TensorSpec([], tf.string)
TEXTS = tf.TensorSpec([None], tf.string)
NUMBER = tf.TensorSpec([], tf.int64)
SCORE = tf.TensorSpec([], tf.float32)

# The target of a row whose label is withheld.
NO_LABEL = "<unk>"


@dataclasses.dataclass(frozen=True)
class TextFormat:
    """How rows of one data set become texts.

    Attributes:
        fields: names and kinds of the fields that the two texts are made of.
        convert: from a row to `inputs` and `targets`.
        keep: which rows to use at all; None for every row.
        carry: what metrics need of a row beside its texts.
        carried: the fields that `carry` reads.
        many: whether `convert` makes several texts of a row, along a first axis.
    """

    fields: Mapping[str, tf.TensorSpec]
    convert: Callable[[Example], dict[str, tf.Tensor]]
    keep: Callable[[Example], tf.Tensor] | None = None
    carry: Callable[[Example], dict[str, tf.Tensor]] = lambda row: {}
    carried: tuple[str, ...] = ()
    many: bool = False


def classification(
    prefix: str, fields: Mapping[str, str], labels: tuple[str, ...], *, markup: bool = False
) -> TextFormat:
    """Returns the format `prefix field: text field: text` with the word of the label as target.

    Args:
        prefix: T5's name of the benchmark.
        fields: names in the text, in order, to fields of the row. T5 sorts them by name except
            for MultiRC and WiC.
        labels: the word of each label; a withheld label, -1, becomes `<unk>`.
        markup: takes HTML away, which MultiRC has: `<br>` to a space, `<b>` and `</b>` to nothing.
    """

    def convert(row: Example) -> dict[str, tf.Tensor]:
        parts = [prefix]
        for name, field in fields.items():
            parts += [f"{name}:", row[field]]
        inputs = tf.strings.join(parts, separator=" ")
        if markup:
            inputs = tf.strings.regex_replace(inputs, "<br>", " ")
            inputs = tf.strings.regex_replace(inputs, "</?b>", "")
        label = row["label"]
        known = (label >= -1) & (label < len(labels))
        tf.debugging.Assert(known, [f"the label is none of {', '.join(labels)}:", label])
        return {"inputs": inputs, "targets": tf.gather([NO_LABEL, *labels], label + 1)}

    return TextFormat({**dict.fromkeys(fields.values(), TEXT), "label": NUMBER}, convert)


def multirc() -> TextFormat:
    """Returns MultiRC's format: is this an answer to the question on the paragraph?

    T5 keeps the number of the question, by which exact match groups answers, as `idx/question`.
    """
    names = ("question", "answer", "paragraph")
    basic = classification("multirc", {n: n for n in names}, ("False", "True"), markup=True)
    return dataclasses.replace(
        basic, carry=lambda row: {"idx/question": row["idx"]["question"]}, carried=("idx",)
    )


def similarity() -> TextFormat:
    """Returns STS-B's format: the score of two sentences, rounded to the nearest 0.2, as text."""

    def convert(row: Example) -> dict[str, tf.Tensor]:
        parts = ["stsb sentence1:", row["sentence1"], "sentence2:", row["sentence2"]]
        fifths = tf.round(tf.cast(row["label"], tf.float32) * 5)
        score = tf.strings.as_string(fifths / 5, precision=1)
        return {"inputs": tf.strings.join(parts, separator=" "), "targets": score}

    return TextFormat({"sentence1": TEXT, "sentence2": TEXT, "label": SCORE}, convert)


def record() -> TextFormat:
    """Returns ReCoRD's format: which entity is left out of the query?

    One text for each right answer, or one with `<unk>` if there is none. A highlight of the
    article becomes a sentence of its passage. All answers go along for the metrics.
    """

    def convert(row: Example) -> dict[str, tf.Tensor]:
        passage = tf.strings.regex_replace(row["passage"], r"([.?!\"'])\n@highlight\n", r"\1 ")
        passage = tf.strings.regex_replace(passage, r"\n@highlight\n", ". ")
        entities = tf.strings.reduce_join(row["entities"], separator=", ")
        parts = ["record query:", row["query"], "entities:", entities, "passage:", passage]
        count = tf.maximum(tf.size(row["answers"]), 1)
        inputs = tf.repeat(tf.strings.join(parts, separator=" "), count)
        # The <unk> stands last and is cut off where there are answers.
        return {"inputs": inputs, "targets": tf.concat([row["answers"], [NO_LABEL]], 0)[:count]}

    def carry(row: Example) -> dict[str, tf.Tensor]:
        return {
            "answers": row["answers"],
            "idx/passage": row["idx"]["passage"],
            "idx/query": row["idx"]["query"],
        }

    fields = {"passage": TEXT, "query": TEXT, "entities": TEXTS, "answers": TEXTS}
    return TextFormat(fields, convert, carry=carry, carried=("answers", "idx"), many=True)
