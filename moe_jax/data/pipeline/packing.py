"""Packing: segment ids and positions of several documents in one sequence.

Whole examples of tasks with inputs and targets are packed by seqio's own feature converters.
"""

from collections.abc import Mapping

import seqio
import tensorflow as tf

from moe_jax.data.pipeline.feature_converters import Features


class PackedDocumentsFeatureConverter(seqio.LMFeatureConverter):
    """Adds segment ids and positions of the documents to sequences of a stream of documents.

    A document ends with the end-of-sequence token. The beginning of a sequence starts a new
    document, because the tokens before it are in another sequence.

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
