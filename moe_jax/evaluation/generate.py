"""Generate text autoregressively, with a key-value cache and causal routing.

Tokens are routed by `Router.causal`, which depends on each token alone, so that a generated token
is routed to the same experts as in a forward pass over the whole text, whatever the other rows of
its batch are. Decoding ends when all rows have ended.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from moe_jax.data.batch import PAD
from moe_jax.evaluation.beam_search import NEVER, BeamSearch
from moe_jax.evaluation.prompts import last_hidden, prompt_context, prompt_rows
from moe_jax.evaluation.sampling import SamplingConfig, sample_tokens
from moe_jax.models.batch_context import BatchContext
from moe_jax.models.decoder import Caches
from moe_jax.models.decoding import DecodingModel, DecodingWeights
from moe_jax.models.functional import LanguageModel, Variables
from moe_jax.sharding.rules import BATCH_AXES

# Steps of each compiled call when tokens are streamed.
_STREAMED_STEPS = 4


@dataclasses.dataclass(frozen=True)
class Generated:
    """A generated text.

    Attributes:
        tokens: its tokens, without the end token.
        ended: true if the model ended it, false if it was cut at `Sampling.max_new_tokens`.
        score: of beam search, the logarithm of its probability, the end token included, divided by
            the length penalty; None otherwise.
    """

    tokens: list[int]
    ended: bool
    score: float | None = None


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _State:
    """Rows in the middle of decoding; N is `Sampling.max_new_tokens`.

    Attributes:
        caches: keys and values of the positions before `position_B`.
        token_B: the latest token of each row, which the next step reads.
        position_B: its position.
        key_B: random key of each row.
        ended_B: rows that have ended.
        tokens_BN: the tokens up to now, then end tokens.
        count: number of tokens up to now.
    """

    caches: Caches
    token_B: jax.Array
    position_B: jax.Array
    key_B: jax.Array
    ended_B: jax.Array
    tokens_BN: jax.Array
    count: jax.Array


class Generator:
    """Generates text with a model; compiles once per padded prompt length and number of rows.

    A row's tokens do not depend on the other rows of its batch, except where rounding decides
    between two tokens: a matrix product of several rows is not rounded like that of one.
    """

    def __init__(self, model: LanguageModel, config: SamplingConfig, end: int):
        """Creates a generator.

        Args:
            model: the model.
            config: settings of sampling.
            end: the end-of-document token.
        """
        self._decoding = DecodingModel(model)
        self._config, self._end, self._partition = config, end, model.partition
        self._prefill = jax.jit(self._start)
        self._decode = jax.jit(self._continue, donate_argnums=1)
        self._beam_search = BeamSearch(self._decoding, config, end)

    def __call__(
        self, variables: Variables, prompt: Sequence[int], seed: int | None = None
    ) -> list[int]:
        """Returns the tokens generated after the prompt, up to the end of the document."""
        return self.batch(variables, [prompt], None if seed is None else [seed])[0]

    def batch(
        self,
        variables: Variables,
        prompts: Sequence[Sequence[int]],
        seeds: Sequence[int] | None = None,
    ) -> list[list[int]]:
        """Returns the tokens generated after each prompt; a row's are the same as alone.

        Args:
            variables: the arrays of the model.
            prompts: tokens of the prompts, of any lengths; all are decoded as one batch.
            seeds: a seed for each prompt; None for `Sampling.seed` for all.
        """
        return [text.tokens for text in self.texts(variables, prompts, seeds)]

    def texts(
        self,
        variables: Variables,
        prompts: Sequence[Sequence[int]],
        seeds: Sequence[int] | None = None,
    ) -> list[Generated]:
        """Generates a text after each prompt, as `batch` does; with beams, the best."""
        if not prompts:
            return []
        if self._config.beams > 1:
            return [texts[0] for texts in self.beams(variables, prompts)]
        weights = self._decoding.prepare(variables)
        state = self._prefill(weights, *self._rows(prompts, seeds))
        state = self._decode(weights, state, jnp.int32(self._config.max_new_tokens))
        tokens_BN = self._fetch(state.tokens_BN)
        return [self._text(row) for row in tokens_BN[: len(prompts)].tolist()]

    def beams(
        self, variables: Variables, prompts: Sequence[Sequence[int]]
    ) -> list[list[Generated]]:
        """Returns the `Sampling.beams` best texts of each prompt, the best first.

        There are fewer if there are not so many texts.
        """
        if not prompts:
            return []
        weights = self._decoding.prepare(variables)
        tokens_BS, length_B, _ = self._rows(prompts, None)
        found = self._beam_search(weights, tokens_BS, length_B)
        tokens_BWN, scores_BW = self._fetch(found.tokens_BWN), self._fetch(found.scores_BW)
        return [
            [
                dataclasses.replace(self._text(tokens), score=float(score))
                for tokens, score in zip(tokens_BWN[row].tolist(), scores_BW[row], strict=True)
                if score > NEVER
            ]
            for row in range(len(prompts))
        ]

    def stream(
        self, variables: Variables, prompt: Sequence[int], seed: int | None = None
    ) -> Iterator[list[int]]:
        """Yields the tokens of `__call__` as they are made, a few at a time."""
        weights = self._decoding.prepare(variables)
        state = self._prefill(weights, *self._rows([prompt], None if seed is None else [seed]))
        given, limit = 0, 1
        while True:
            text = self._text(self._fetch(state.tokens_BN)[0, :limit].tolist())
            yield text.tokens[given:]
            given = len(text.tokens)
            if text.ended or limit >= self._config.max_new_tokens:
                return
            limit = min(limit + _STREAMED_STEPS, self._config.max_new_tokens)
            state = self._decode(weights, state, jnp.int32(limit))

    def prefill(self, variables: Variables, prompts: Sequence[Sequence[int]]) -> Any:
        """Processes prompts and samples one token; returns arrays that are still computed.

        For measurements, as is `decode`.
        """
        return self._prefill(self._decoding.prepare(variables), *self._rows(prompts, None))

    def decode(self, variables: Variables, state: Any) -> Any:
        """Generates the rest after `prefill`, whose result cannot be used again."""
        limit = jnp.int32(self._config.max_new_tokens)
        return self._decode(self._decoding.prepare(variables), state, limit)

    def _text(self, row: list[int]) -> Generated:
        ended = self._end in row
        return Generated(row[: row.index(self._end)] if ended else row, ended)

    def _rows(
        self, prompts: Sequence[Sequence[int]], seeds: Sequence[int] | None
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Returns padded tokens [B, S], lengths [B], and seeds [B], on the devices."""
        if seeds is None:
            seeds = [self._config.seed] * len(prompts)
        rows = prompt_rows(prompts, seeds, self._partition.batch_shards)
        arrays: tuple[jax.Array, jax.Array, jax.Array] = self._partition.place_rows(rows)
        return arrays

    def _start(
        self, weights: DecodingWeights, tokens_BS: jax.Array, length_B: jax.Array, seed_B: jax.Array
    ) -> _State:
        """Processes the prompts in one pass and samples the first token."""
        batch, padded = tokens_BS.shape
        context = prompt_context(tokens_BS, length_B, self._decoding.model)
        capacity = padded + self._config.max_new_tokens
        hidden_BSD, caches = self._decoding.prefill(weights, context, capacity)
        last_B1D = last_hidden(hidden_BSD, length_B)
        state = _State(
            caches=caches,
            token_B=jnp.full((batch,), PAD, jnp.int32),
            position_B=length_B - 1,
            key_B=jax.vmap(jax.random.key)(seed_B),
            ended_B=length_B == 0,
            tokens_BN=jnp.full((batch, self._config.max_new_tokens), self._end, jnp.int32),
            count=jnp.int32(0),
        )
        return self._sampled(weights, state, last_B1D)

    def _continue(self, weights: DecodingWeights, state: _State, limit: jax.Array) -> _State:
        """Decodes until all rows have ended or have `limit` tokens."""

        def step(state: _State) -> _State:
            context = BatchContext(
                state.token_B[:, None], state.position_B[:, None], ~state.ended_B[:, None]
            )
            hidden_B1D, caches = self._decoding.step(weights, state.caches, context)
            return self._sampled(weights, dataclasses.replace(state, caches=caches), hidden_B1D)

        def goes_on(state: _State) -> jax.Array:
            return (state.count < limit) & ~state.ended_B.all()

        result: _State = jax.lax.while_loop(goes_on, step, state)
        return result

    def _sampled(self, weights: DecodingWeights, state: _State, hidden_B1D: jax.Array) -> _State:
        """Samples the next token of each row from its hidden state."""
        logits_BV = self._decoding.logits(weights, hidden_B1D)[:, 0]
        position_B = state.position_B + 1
        with jax.named_scope("sample"):
            rows = PartitionSpec(BATCH_AXES)
            sample = self._partition.shard_map(self._sample, (rows, rows, rows), rows)
            token_B = sample(logits_BV, state.key_B, position_B)
            token_B = jnp.where(state.ended_B, self._end, token_B)
        return dataclasses.replace(
            state,
            token_B=token_B,
            position_B=position_B,
            ended_B=state.ended_B | (token_B == self._end),
            tokens_BN=state.tokens_BN.at[:, state.count].set(token_B),
            count=state.count + 1,
        )

    def _sample(self, logits_BV: jax.Array, key_B: jax.Array, position_B: jax.Array) -> jax.Array:
        """Samples with keys of the rows and positions."""
        keys = jax.vmap(jax.random.fold_in)(key_B, position_B)
        return sample_tokens(logits_BV, keys, self._config)

    def _fetch(self, array: jax.Array) -> np.ndarray:
        """Returns a host copy of an array, in every process."""
        if self._partition.is_sharded:
            array = jax.jit(lambda a: a, out_shardings=self._partition.replicated)(array)
        return np.asarray(array)
