"""WSC as text to text, coreference resolution: the Winograd schemas of SuperGLUE, and DPR.

T5's input is the sentence with the pronoun in asterisks, `wsc: Bob asked Tom if *he* ...`, and
the target is the noun that it refers to (Raffel et al. 2020, section 2.4 and appendix D; after
Kocijan et al. 2019, arXiv 1905.06290). SuperGLUE asks instead whether a given noun is the referent:
training uses the examples where it is, evaluation compares the given noun with the generated one.
"""

import tensorflow as tf

from moe_jax.data.tasks.glue.text_formats import NUMBER, TEXT, TEXTS, Example, TextFormat

# Placeholder of the pronoun.
BLANK = "X"


def wsc(correct_only: bool) -> TextFormat:
    """Returns the format of WSC, a sentence with single spaces between words.

    Args:
        correct_only: use only the examples whose noun is the referent, for training.
    """

    def convert(example: Example) -> dict[str, tf.Tensor]:
        # As in T5 every word X becomes the pronoun, also one that was in the sentence.
        marked = tf.strings.regex_replace(
            _blank(example["text"], example["span2_text"], example["span2_index"]),
            f" {BLANK} ",
            tf.strings.join([" *", example["span2_text"], "* "]),
        )
        return {
            "inputs": tf.strings.join(["wsc:", marked], separator=" "),
            "targets": tf.identity(example["span1_text"]),
        }

    features = {**dict.fromkeys(("text", "span1_text", "span2_text"), TEXT), "span2_index": NUMBER}
    if correct_only:
        return TextFormat(
            {**features, "label": NUMBER}, convert, predicate=lambda example: example["label"] != 0
        )
    return TextFormat(
        features,
        convert,
        metric_features=lambda example: {"label": example["label"]},
        read_by_metrics=("label",),
    )


def _blank(text: tf.Tensor, pronoun: tf.Tensor, index: tf.Tensor) -> tf.Tensor:
    """Replaces the pronoun, which is word number `index` (from 0), by an X.

    Two sentences of the published data are irregular: in one the index is one too small, in the
    other the pronoun is followed by punctuation, which is then separated, and the text's last space
    is dropped. T5 compares with these two sentences; here the rule holds for every text.
    """
    words = tf.strings.split(text, " ")
    last = tf.size(words) - 1
    index = tf.cast(index, tf.int32)
    tf.debugging.Assert(
        (index > 0) & (index <= last),
        ["the pronoun must be a word of the text after the first:", index, text],
    )
    following = words[tf.minimum(index + 1, last)]
    index += tf.cast((words[index] != pronoun) & (following == pronoun), tf.int32)
    quoted = tf.strings.join([r"\Q", pronoun, r"\E"])
    tf.debugging.Assert(
        tf.strings.regex_full_match(words[index], tf.strings.join([quoted, "[[:punct:]]*"])),
        ["the word at span2_index is not the pronoun; the two:", pronoun, text],
    )
    punctuation = tf.strings.regex_replace(words[index], tf.strings.join(["^", quoted]), "")
    middle = tf.where(
        punctuation == "", BLANK, tf.strings.join([BLANK, punctuation], separator=" ")
    )
    before = tf.strings.reduce_join(words[:index], separator=" ")
    after = tf.strings.reduce_join(words[index + 1 :], separator=" ")
    blanked = tf.strings.join([before, middle, after], separator=" ")
    return tf.where(punctuation == "", blanked, tf.strings.regex_replace(blanked, r"\s+$", ""))


def dpr() -> TextFormat:
    """Returns the format of DPR (Rahman and Ng 2012): two nouns, one of which is the referent.

    The pronoun is the first one in the text with a space before and a space, stop or comma after.
    """

    def convert(example: Example) -> dict[str, tf.Tensor]:
        pattern = tf.strings.join([" (", example["pronoun"], r")( |\.|,)"])
        marked = tf.strings.regex_replace(
            example["sentence"], pattern, r" *\1*\2", replace_global=False
        )
        return {
            "inputs": tf.strings.join(["wsc:", marked], separator=" "),
            "targets": example["candidates"][example["label"]],
        }

    features = {"sentence": TEXT, "pronoun": TEXT, "candidates": TEXTS, "label": NUMBER}
    return TextFormat(features, convert)
