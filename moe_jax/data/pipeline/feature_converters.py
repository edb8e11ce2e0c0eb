"""seqio feature converters: from the examples of a task to the features of a decoder."""

from collections.abc import Mapping

import seqio
import tensorflow as tf

Features = Mapping[str, tf.Tensor]


class TrimmedPrefixLMFeatureConverter(seqio.PrefixLMFeatureConverter):
    """Concatenates `inputs` and `targets` in one sequence; only targets are in the loss.

    Unlike in its parent, inputs can use the tokens that a target below its maximum length leaves;
    longer inputs are trimmed at the end, before their last token (end of sequence). A target of a
    whole sequence or more loses its last token to that.

    Args:
        length: tokens in a sequence.
        pack: whether several examples are packed in a sequence.
    """

    def __init__(self, length: int, pack: bool):
        super().__init__(pack=pack)
        self._length = length

    def _concat_and_add_masks(self, features: Features) -> Features:
        inputs, targets = features["inputs"], features["targets"]
        room = self._length - tf.maximum(tf.size(targets), 1)
        # `[: -1]` would drop only one.
        cut = tf.concat([inputs[: tf.maximum(room - 1, 0)], inputs[-1:]], axis=0)
        inputs = tf.cond(tf.size(inputs) > room, lambda: cut, lambda: inputs)
        return super()._concat_and_add_masks({**features, "inputs": inputs})

    def _concat_task_feature_lengths(self, task_feature_lengths: Mapping[str, int]) -> Mapping:
        lengths = super()._concat_task_feature_lengths(task_feature_lengths)
        return dict.fromkeys(lengths, self._length)

    def get_model_feature_lengths(self, task_feature_lengths: Mapping[str, int]) -> Mapping:
        """Returns the length of each feature, which is that of the sequence."""
        lengths = super().get_model_feature_lengths(task_feature_lengths)
        return dict.fromkeys(lengths, self._length)
