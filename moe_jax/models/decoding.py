"""Models in the form in which they decode: causal routing, and weights laid out for few tokens.

A step of decoding multiplies every weight by a few tokens, so that its time is that of reading the
weights. On CPU, three things decide how fast they are read (docs/guides/generation.md has the
measurements):

- XLA's CPU backend multiplies a few rows by a matrix [in, out] two to four times faster than by its
  transpose, so that the embedding as projection to the vocabulary, and the second matrices of all
  feed-forwards, are transposed once;
- layers that are not scanned read their weights from arrays of their own instead of slices of
  stacked arrays, which would be copied in every call;
- only experts that a token has chosen are read (`moe_jax.dispatch.few_tokens`).

On a mesh and on accelerators the weights keep their layout: there it makes no difference.
"""

import dataclasses

import jax

from moe_jax.models.batch_context import BatchContext
from moe_jax.models.decoder import Caches, Group
from moe_jax.models.functional import LanguageModel, Variables
from moe_jax.models.key_value_cache import KeyValueCache
from moe_jax.types import ActivationsBSD, LogitsBSV

# The second matrices of feed-forwards, by the last part of their names.
_SECOND = "wo"


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class DecodingWeights:
    """The arrays of a model as `DecodingModel` reads them.

    Attributes:
        variables: the arrays in their usual form.
        groups: parameters and router state of each group of layers; None for scanned layers.
        projection_DV: the transposed embedding in the compute precision; None to use the
            embedding.
    """

    variables: Variables
    groups: list[Group] | None = None
    projection_DV: jax.Array | None = None


class DecodingModel:
    """A model that reads prompts and decodes token by token, with causal routing.

    Args:
        model: the model as it was trained.

    Attributes:
        model: the model with causal routing.
    """

    def __init__(self, model: LanguageModel):
        causal = model.causal()
        self._partition, config = model.partition, model.config
        is_local_cpu = not model.partition.is_sharded and model.partition.platform == "cpu"
        self._is_transposed = is_local_cpu and not config.scan_layers
        dispatch = "few_tokens" if config.dispatch == "grouped" else config.dispatch
        self.model = causal.for_decoding(dispatch, self._is_transposed)
        self._lay_out = jax.jit(self._layout)
        self._latest: tuple[Variables, DecodingWeights] | None = None

    def prepare(self, variables: Variables) -> DecodingWeights:
        """Lays out the weights; those of the latest variables are kept."""
        if self._latest is None or self._latest[0] is not variables:
            # Frees the copies of other variables first.
            self._latest = None
            groups, projection_DV = self._lay_out(variables)
            self._latest = (variables, DecodingWeights(variables, groups, projection_DV))
        return self._latest[1]

    def _layout(self, variables: Variables) -> tuple[list[Group] | None, jax.Array | None]:
        if self.model.config.scan_layers:
            return None, None
        decoder = self.model.bind(variables)
        groups = decoder.unstacked()
        if not self._is_transposed:
            return groups, None
        projection_VD = decoder.embedding[...].astype(self.model.config.compute_dtype)
        return [_transposed(group) for group in groups], projection_VD.T

    def step(
        self, weights: DecodingWeights, caches: Caches, batch: BatchContext
    ) -> tuple[ActivationsBSD, Caches]:
        """Runs tokens that follow those in the caches; for use inside `jax.jit`.

        Args:
            weights: from `prepare`.
            caches: keys and values of the earlier positions.
            batch: the tokens, each row at consecutive positions.

        Returns:
            the final activations, and the caches with the entries of these positions.
        """
        decoder = self.model.bind(weights.variables)
        output = decoder(batch, caches=caches, groups=weights.groups)
        assert output.caches is not None
        start_B = batch.positions_BS[:, 0]
        extended = [
            [cache.written(new, start_B) for cache, new in zip(*of_group, strict=True)]
            for of_group in zip(caches, output.caches, strict=True)
        ]
        return output.hidden_BSD, extended

    def prefill(
        self, weights: DecodingWeights, batch: BatchContext, length: int
    ) -> tuple[ActivationsBSD, Caches]:
        """Runs the first tokens of rows in one pass; for use inside `jax.jit`.

        Args:
            weights: from `prepare`.
            batch: the tokens, from position 0; padding at the ends of rows is masked.
            length: number of positions of the caches.

        Returns:
            the final activations, and caches with the entries of these positions. Those of padding
            are overwritten before they are read.
        """
        decoder = self.model.bind(weights.variables)
        empty = decoder.make_caches(batch.tokens_BS.shape[0], 0)
        output = decoder(batch, caches=empty, groups=weights.groups)
        assert output.caches is not None
        caches = jax.tree.map(
            lambda cache: cache.padded(length),
            output.caches,
            is_leaf=lambda node: isinstance(node, KeyValueCache),
        )
        return output.hidden_BSD, caches

    def logits(self, weights: DecodingWeights, hidden_BSD: ActivationsBSD) -> LogitsBSV:
        """Computes float32 logits over the vocabulary; for use inside `jax.jit`."""
        return self.model.bind(weights.variables).logits(hidden_BSD, weights.projection_DV)


def _transposed(group: Group) -> Group:
    """Transposes the second matrices of all feed-forwards of a group."""
    params, state = group
    flat = [
        (path, leaf.replace(leaf[...].swapaxes(-1, -2)) if path[-1] == _SECOND else leaf)
        for path, leaf in params.flat_state()
    ]
    return type(params).from_flat_path(flat), state
