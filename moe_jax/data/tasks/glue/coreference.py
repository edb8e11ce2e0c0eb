"""Pronouns as text to text: the Winograd schemas of SuperGLUE, and DPR.

T5 gives the sentence with the pronoun in asterisks, `wsc: Bob asked Tom if *he* ...`, and wants
the noun that it stands for (Raffel et al. 2020, section 2.4 and appendix D; after Kocijan
et al. 2019, arXiv 1905.06290). SuperGLUE asks instead whether a given noun is the right one, so
training uses the rows where it is, and evaluation compares the noun given with the one generated.
"""

import tensorflow as tf

from moe_jax.data.tasks.glue.text_formats import NUMBER, TEXT, TEXTS, Example, TextFormat

# What stands in for the pronoun while its place is being found.
BLANK = "X"


def wsc(correct_only: bool) -> TextFormat:
    """Returns the format of WSC, a sentence as words between single spaces.

    Args:
        correct_only: keeps only the rows whose noun is the right one, for training.
    """

    def convert(row: Example) -> dict[str, tf.Tensor]:
        # Every lone X becomes the pronoun, as in T5, also one that was in the sentence.
        marked = tf.strings.regex_replace(
            _blanked(row["text"], row["span2_text"], row["span2_index"]),
            f" {BLANK} ",
            tf.strings.join([" *", row["span2_text"], "* "]),
        )
        return {
            "inputs": tf.strings.join(["wsc:", marked], separator=" "),
            "targets": tf.identity(row["span1_text"]),
        }

    fields = {**dict.fromkeys(("text", "span1_text", "span2_text"), TEXT), "span2_index": NUMBER}
    if correct_only:
        return TextFormat({**fields, "label": NUMBER}, convert, keep=lambda row: row["label"] != 0)
    return TextFormat(
        fields, convert, carry=lambda row: {"label": row["label"]}, carried=("label",)
    )


def _blanked(text: tf.Tensor, pronoun: tf.Tensor, index: tf.Tensor) -> tf.Tensor:
    """Returns the text with an X for the pronoun, which is word number `index` (from 0).

    Two sentences of the published data need more: in one the index is one too small, in the
    other punctuation clings to the pronoun, which is then set apart and the text's last space
    dropped. T5 compares with these two sentences; here it is a rule for every text.
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
    clinging = tf.strings.regex_replace(words[index], tf.strings.join(["^", quoted]), "")
    middle = tf.where(clinging == "", BLANK, tf.strings.join([BLANK, clinging], separator=" "))
    before = tf.strings.reduce_join(words[:index], separator=" ")
    after = tf.strings.reduce_join(words[index + 1 :], separator=" ")
    blanked = tf.strings.join([before, middle, after], separator=" ")
    return tf.where(clinging == "", blanked, tf.strings.regex_replace(blanked, r"\s+$", ""))


def dpr() -> TextFormat:
    """Returns the format of DPR (Rahman and Ng 2012): two nouns, one of which is right.

    The pronoun is the first one in the text with a space before and a space, stop or comma after.
    """

    def convert(row: Example) -> dict[str, tf.Tensor]:
        pattern = tf.strings.join([" (", row["pronoun"], r")( |\.|,)"])
        marked = tf.strings.regex_replace(
            row["sentence"], pattern, r" *\1*\2", replace_global=False
        )
        return {
            "inputs": tf.strings.join(["wsc:", marked], separator=" "),
            "targets": row["candidates"][row["label"]],
        }

    fields = {"sentence": TEXT, "pronoun": TEXT, "candidates": TEXTS, "label": NUMBER}
    return TextFormat(fields, convert)
