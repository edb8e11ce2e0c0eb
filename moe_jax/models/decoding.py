"""Models as they decode: causal routing, a cache, and weights laid out for few tokens.

A step of decoding multiplies every weight by a few tokens, so that its time is that of reading the
weights. XLA's CPU backend reads them fast if (docs/guides/generation.md has measurements)

- they are stored as [in, out]: a few rows times the transpose of a matrix take two to four times as
  long, so that the embedding, as projection to the vocabulary, and the second matrices of all
  feed-forwards are transposed once;
- every layer and every expert has arrays of its own: a slice of a stacked array is copied first;
- experts that no token has chosen are not read (`moe_jax.dispatch.few_tokens`).

Prompts, steps of more tokens, scanned layers, meshes and accelerators use the weights as they are.
"""

import dataclasses

import jax

from moe_jax.dispatch.few_tokens import MOST_TOKENS
from moe_jax.models.batch_context import BatchContext
from moe_jax.models.decoder import Caches, Group
from moe_jax.models.functional import LanguageModel, Variables
from moe_jax.models.key_value_cache import KeyValueCache
from moe_jax.types import ActivationsBSD, LogitsBSV

# The experts are unrolled in the compiled step.
_MOST_EXPERTS = 64


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LaidOut:
    """Copies of the weights for steps of few tokens.

    Attributes:
        groups: parameters and router state of each group of layers.
        projection_DV: the transposed embedding in the compute precision.
    """

    groups: list[Group]
    projection_DV: jax.Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class DecodingWeights:
    """The arrays of a model as `DecodingModel` reads them.

    Attributes:
        variables: the arrays in their usual form.
        laid_out: copies for steps of few tokens; None where they would not help.
    """

    variables: Variables
    laid_out: LaidOut | None = None


class DecodingModel:
    """A model that reads prompts and decodes token by token, with causal routing.

    Args:
        model: the model as it was trained.

    Attributes:
        model: the model with causal routing.
    """

    def __init__(self, model: LanguageModel):
        self.model, config = model.causal(), model.config
        self._few = self.model.for_decoding()
        self._is_laid_out = (
            not model.partition.is_sharded
            and model.partition.platform == "cpu"
            and not config.scan_layers
            and config.num_experts <= _MOST_EXPERTS
        )
        self._lay_out = jax.jit(self._copies)
        self._latest: tuple[Variables, DecodingWeights] | None = None

    def prepare(self, variables: Variables) -> DecodingWeights:
        """Lays out the weights; those of the latest variables are kept."""
        if not self._is_laid_out:
            return DecodingWeights(variables)
        if self._latest is None or self._latest[0] is not variables:
            # Frees the copies of other variables first.
            self._latest = None
            self._latest = (variables, DecodingWeights(variables, self._lay_out(variables)))
        return self._latest[1]

    def _copies(self, variables: Variables) -> LaidOut:
        decoder = self.model.bind(variables)
        projection_VD = decoder.embedding[...].astype(self.model.config.compute_dtype)
        return LaidOut([_laid_out(group) for group in decoder.unstacked()], projection_VD.T)

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
        layout = self._layout(weights, batch.tokens_BS)
        if layout is None:
            output = self.model.bind(weights.variables)(batch, caches=caches)
        else:
            decoder = self._few.bind(weights.variables)
            output = decoder(batch, caches=caches, groups=layout.groups)
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
        output = decoder(batch, caches=empty)
        assert output.caches is not None
        caches = jax.tree.map(
            lambda cache: cache.padded(length),
            output.caches,
            is_leaf=lambda node: isinstance(node, KeyValueCache),
        )
        return output.hidden_BSD, caches

    def logits(self, weights: DecodingWeights, hidden_BSD: ActivationsBSD) -> LogitsBSV:
        """Computes float32 logits over the vocabulary; for use inside `jax.jit`."""
        layout = self._layout(weights, hidden_BSD[..., 0])
        projection_DV = None if layout is None else layout.projection_DV
        return self.model.bind(weights.variables).logits(hidden_BSD, projection_DV)

    def _layout(self, weights: DecodingWeights, of_tokens: jax.Array) -> LaidOut | None:
        """Returns the copies, if there are any and the tokens are few."""
        return weights.laid_out if of_tokens.size <= MOST_TOKENS else None


def _laid_out(group: Group) -> Group:
    """Transposes the second matrices of a group's feed-forwards and splits its experts."""
    params, state = group

    def change(path: tuple, value: jax.Array) -> jax.Array | tuple[jax.Array, ...]:
        if path[-1] == "wo":
            value = value.swapaxes(-1, -2)
        return tuple(value) if "experts" in path and path[-1] in ("wi", "wo") else value

    flat = [(path, leaf.replace(change(path, leaf[...]))) for path, leaf in params.flat_state()]
    return type(params).from_flat_path(flat), state
