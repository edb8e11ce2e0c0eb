"""Generate text autoregressively, with a key-value cache and causal routing.

Tokens are routed by `Router.causal`, which depends on each token alone, so that a generated token
is routed to the same experts as in a forward pass over the whole text.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from moe_jax.data.batch import PAD
from moe_jax.evaluation.sampling import SamplingConfig, sample_tokens
from moe_jax.models.batch_context import BatchContext
from moe_jax.models.decoder import Caches
from moe_jax.models.functional import LanguageModel, Variables

# Prompts are padded to a multiple of this, which limits the number of compiled lengths.
_PROMPT_MULTIPLE = 32


class Generator:
    """Generates text with a model; compiles once per padded prompt length."""

    def __init__(self, model: LanguageModel, config: SamplingConfig, end: int):
        """Creates a generator.

        Args:
            model: the model.
            config: settings of sampling.
            end: the end-of-document token.
        """
        self._model, self._config, self._end = model.causal(), config, end
        self._run = jax.jit(self._generate)

    def __call__(
        self, variables: Variables, prompt: list[int], seed: int | None = None
    ) -> list[int]:
        """Returns the tokens generated after the prompt, up to the end of the document."""
        padded = -(-(len(prompt) + 1) // _PROMPT_MULTIPLE) * _PROMPT_MULTIPLE
        tokens = np.full((1, padded), PAD, np.int32)
        tokens[0, 1 : len(prompt) + 1] = prompt
        key = jax.random.key(self._config.seed if seed is None else seed)
        new = self._run(variables, tokens, jnp.int32(len(prompt) + 1), key)
        written = np.asarray(new)[0].tolist()
        return written[: written.index(self._end)] if self._end in written else written

    def step(
        self,
        variables: Variables,
        caches: Caches,
        tokens_BS: jax.Array,
        start_B: jax.Array,
        prefix_BS: jax.Array | None = None,
    ) -> tuple[jax.Array, Caches]:
        """Runs tokens at positions start, start + 1, ... and returns hidden states and caches.

        With `prefix_BS`, which marks the tokens of the prompt, `tokens_BS` must start each row.
        """
        positions_BS = start_B[:, None] + jnp.arange(tokens_BS.shape[1])
        decoder = self._model.bind(variables)
        mask_BS = jnp.ones(tokens_BS.shape, jnp.bool_)
        batch = BatchContext(tokens_BS, positions_BS, mask_BS, prefix_BS=prefix_BS)
        output = decoder(batch, caches=caches)
        assert output.caches is not None
        return output.hidden_BSD, output.caches

    def _generate(
        self, variables: Variables, tokens_BS: jax.Array, length: jax.Array, key: jax.Array
    ) -> jax.Array:
        """Processes the prompt in one pass, then generates tokens, [B, max_new_tokens]."""
        batch, padded = tokens_BS.shape
        decoder = self._model.bind(variables)
        caches = decoder.make_caches(batch, padded + self._config.max_new_tokens)
        zeros_B = jnp.zeros((batch,), jnp.int32)
        prefix_BS = None
        if self._model.config.bidirectional_prefix:
            prefix_BS = jnp.broadcast_to(jnp.arange(padded) < length, tokens_BS.shape)
        hidden_BSD, caches = self.step(variables, caches, tokens_BS, zeros_B, prefix_BS)
        # Cache entries of the padding are overwritten before they are read.
        last_B1D = jax.lax.dynamic_slice_in_dim(hidden_BSD, length - 1, 1, axis=1)
        sample = functools.partial(sample_tokens, config=self._config)

        def one(carry: tuple, key: jax.Array) -> tuple:
            hidden_B1D, caches, position = carry
            token_B = sample(decoder.logits(hidden_B1D)[:, 0], key)
            at_B = jnp.full((batch,), position, jnp.int32)
            hidden_B1D, caches = self.step(variables, caches, token_B[:, None], at_B)
            return (hidden_B1D, caches, position + 1), token_B

        keys = jax.random.split(key, self._config.max_new_tokens)
        tokens_SB: jax.Array
        _, tokens_SB = jax.lax.scan(one, (last_B1D, caches, length), keys)
        return tokens_SB.T
