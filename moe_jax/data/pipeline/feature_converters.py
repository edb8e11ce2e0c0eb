"""From the examples of a seqio task to the rows of a decoder, as seqio's feature converters."""

from collections.abc import Mapping

import seqio
import tensorflow as tf

Features = Mapping[str, tf.Tensor]


class TrimmedPrefixLMFeatureConverter(seqio.PrefixLMFeatureConverter):
    """`inputs` and then `targets` in one row; only targets count in the loss.

    Unlike its parent, a target that is shorter than its limit leaves the room to the inputs; what
    does not fit is cut from the end of the inputs, whose last token (end of sequence) is kept.
    A target of a whole row or more loses its end to that token.

    Args:
        length: of a row, in tokens.
    """

    def __init__(self, length: int, pack: bool):
        super().__init__(pack=pack)
        self._length = length

    def _concat_and_add_masks(self, features: Features) -> Features:
        inputs, targets = features["inputs"], features["targets"]
        room = self._length - tf.maximum(tf.size(targets), 1)
        # `[: -1]` would be all but one.
        cut = tf.concat([inputs[: tf.maximum(room - 1, 0)], inputs[-1:]], axis=0)
        inputs = tf.cond(tf.size(inputs) > room, lambda: cut, lambda: inputs)
        return super()._concat_and_add_masks({**features, "inputs": inputs})

    def _concat_task_feature_lengths(self, task_feature_lengths: Mapping[str, int]) -> Mapping:
        lengths = super()._concat_task_feature_lengths(task_feature_lengths)
        return dict.fromkeys(lengths, self._length)

    def get_model_feature_lengths(self, task_feature_lengths: Mapping[str, int]) -> Mapping:
        """Returns the length of each feature: that of a row."""
        lengths = super().get_model_feature_lengths(task_feature_lengths)
        return dict.fromkeys(lengths, self._length)


class PackedDocumentsFeatureConverter(seqio.LMFeatureConverter):
    """Rows cut from a stream of documents, with the documents in a row kept apart.

    A document ends with the end-of-sequence token. What a row starts with counts as a document
    of its own, for what stood before it is in another row.

    Args:
        end: the end-of-sequence token.
    """

    def __init__(self, end: int):
        super().__init__(pack=True)
        self._end = end

    def _convert_features(
        self, ds: tf.data.Dataset, task_feature_lengths: Mapping[str, int]
    ) -> tf.data.Dataset:
        ds = seqio.utils.trim_and_pad_dataset(ds, task_feature_lengths)
        return ds.map(self._with_documents, num_parallel_calls=tf.data.AUTOTUNE)

    def _with_documents(self, features: Features) -> Features:
        targets = features["targets"]
        real = tf.cast(targets != 0, tf.int32)
        before = tf.concat([[self._end], targets[:-1]], axis=0)
        starts = before == self._end
        index = tf.range(tf.size(targets))
        document = tf.cumsum(tf.cast(starts, tf.int32))
        first = tf.gather(tf.boolean_mask(index, starts), document - 1)
        return {
            "decoder_target_tokens": targets,
            "decoder_input_tokens": tf.where(starts, 0, before),
            "decoder_loss_weights": real,
            "decoder_segment_ids": real * document,
            "decoder_positions": real * (index - first),
        }
