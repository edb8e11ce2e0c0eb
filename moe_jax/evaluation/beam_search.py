"""Beam search with a length penalty, for batches of prompts of any lengths.

The score of a text of n tokens, its end token included, is

    log p(text) / ((5 + n) / 6)^alpha

(Wu et al. 2016, eq. 14, without the coverage penalty; T5 decodes with 4 beams and alpha = 0.6,
Raffel et al. 2020, section 3.1.4 and appendix). Texts that are cut at `Sampling.max_new_tokens` are
scored like others. With W beams, each step continues the W best open texts by their two W best
tokens, so that W remain open when some end. A row ends when no open text can get a better score
than the W best ended ones: scores of open texts are at most their log p over the penalty of the
longest text, since log p only falls.
"""

import dataclasses

import jax
import jax.numpy as jnp

from moe_jax.evaluation.prompts import last_hidden, prompt_context
from moe_jax.evaluation.sampling import SamplingConfig
from moe_jax.models.batch_context import BatchContext
from moe_jax.models.decoder import Caches
from moe_jax.models.decoding import DecodingModel, DecodingWeights

# Scores of texts that do not exist are below `NEVER`; finite, so that no difference is NaN.
NEVER = -1e25
_NEVER = -1e30


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Beams:
    """Texts of every row, the best first.

    Attributes:
        tokens_BWN: tokens, then end tokens.
        scores_BW: log p over the length penalty.
    """

    tokens_BWN: jax.Array
    scores_BW: jax.Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Search:
    """The state of a search.

    Attributes:
        caches: keys and values of the open texts, [B * W] rows.
        tokens_BWN: tokens of the open texts.
        log_p_BW: their log probabilities.
        ended: the best texts that have ended.
        position_B: position of the latest token.
        done_B: rows whose search has ended.
        count: number of tokens of the open texts.
    """

    caches: Caches
    tokens_BWN: jax.Array
    log_p_BW: jax.Array
    ended: Beams
    position_B: jax.Array
    done_B: jax.Array
    count: jax.Array


class BeamSearch:
    """Finds the best texts after prompts; compiles once per shape of the prompts.

    Args:
        decoding: the model.
        config: beams, length penalty and maximum number of tokens.
        end: the end-of-document token.
    """

    def __init__(self, decoding: DecodingModel, config: SamplingConfig, end: int):
        self._decoding, self._end = decoding, end
        self._beams, self._limit = config.beams, config.max_new_tokens
        self._alpha = config.length_penalty
        self._run = jax.jit(self._search)

    def __call__(
        self, weights: DecodingWeights, tokens_BS: jax.Array, length_B: jax.Array
    ) -> Beams:
        """Returns the best texts.

        Args:
            weights: the arrays of the model.
            tokens_BS: prompts with padding at their ends.
            length_B: their lengths; 0 for rows that are not searched.
        """
        return self._run(weights, tokens_BS, length_B)

    def _search(self, weights: DecodingWeights, tokens_BS: jax.Array, length_B: jax.Array) -> Beams:
        batch, padded = tokens_BS.shape
        context = prompt_context(tokens_BS, length_B, self._decoding.model)
        hidden_BSD, caches = self._decoding.prefill(weights, context, padded + self._limit)
        logits_B1V = self._decoding.logits(weights, last_hidden(hidden_BSD, length_B))
        # At first all beams are the same text: only one is continued.
        log_p_BW = jnp.full((batch, self._beams), _NEVER).at[:, 0].set(0.0)
        tokens_BWN = jnp.full((batch, self._beams, self._limit), self._end, jnp.int32)
        search = _Search(
            caches=self._rearranged(caches, jnp.arange(batch).repeat(self._beams)),
            tokens_BWN=tokens_BWN,
            log_p_BW=log_p_BW,
            ended=Beams(tokens_BWN, jnp.full((batch, self._beams), _NEVER)),
            position_B=length_B - 1,
            done_B=length_B == 0,
            count=jnp.int32(0),
        )
        search = self._extended(search, jnp.repeat(logits_B1V, self._beams, axis=1))

        def step(search: _Search) -> _Search:
            latest_BW = search.tokens_BWN[:, :, search.count - 1]
            open_BW = jnp.broadcast_to(~search.done_B[:, None], latest_BW.shape)
            position_BW = jnp.broadcast_to(search.position_B[:, None], latest_BW.shape)
            context = BatchContext(*(a.reshape(-1, 1) for a in (latest_BW, position_BW, open_BW)))
            hidden_R1D, caches = self._decoding.step(weights, search.caches, context)
            logits_BWV = self._decoding.logits(weights, hidden_R1D).reshape(batch, self._beams, -1)
            return self._extended(dataclasses.replace(search, caches=caches), logits_BWV)

        def goes_on(search: _Search) -> jax.Array:
            return (search.count < self._limit) & ~search.done_B.all()

        search = jax.lax.while_loop(goes_on, step, search)
        # The open texts of rows that are not done are cut.
        cut_BW = jnp.where(
            search.done_B[:, None], _NEVER, search.log_p_BW / self._penalty(search.count)
        )
        return _best((search.ended, Beams(search.tokens_BWN, cut_BW)), self._beams)

    def _extended(self, search: _Search, logits_BWV: jax.Array) -> _Search:
        """Adds a token to the open texts, and keeps the best open and the best ended ones."""
        batch, beams, size = logits_BWV.shape
        log_p_BWV = jax.nn.log_softmax(logits_BWV, axis=-1) + search.log_p_BW[..., None]
        log_p_BC, index_BC = jax.lax.top_k(log_p_BWV.reshape(batch, -1), 2 * beams)
        parent_BC, token_BC = index_BC // size, (index_BC % size).astype(jnp.int32)
        tokens_BCN = jnp.take_along_axis(search.tokens_BWN, parent_BC[..., None], axis=1)
        tokens_BCN = tokens_BCN.at[:, :, search.count].set(token_BC)
        count = search.count + 1
        is_end_BC = token_BC == self._end
        ending_BC = jnp.where(is_end_BC, log_p_BC / self._penalty(count), _NEVER)
        ended = _best((search.ended, Beams(tokens_BCN, ending_BC)), beams)
        open_BC = jnp.where(is_end_BC, _NEVER, log_p_BC)
        log_p_BW, kept_BW = jax.lax.top_k(open_BC, beams)
        parent_BW = jnp.take_along_axis(parent_BC, kept_BW, axis=1)
        row_BW = jnp.arange(batch)[:, None] * beams + parent_BW
        # The best that an open text can still get.
        bound_B = log_p_BW[:, 0] / self._penalty(jnp.int32(self._limit))
        extended = _Search(
            caches=self._rearranged(search.caches, row_BW.reshape(-1)),
            tokens_BWN=jnp.take_along_axis(tokens_BCN, kept_BW[..., None], axis=1),
            log_p_BW=log_p_BW,
            ended=ended,
            position_B=search.position_B + 1,
            done_B=search.done_B | (ended.scores_BW[:, -1] >= bound_B),
            count=count,
        )
        unchanged = search.done_B
        return dataclasses.replace(
            extended,
            ended=jax.tree.map(
                lambda old, new: jnp.where(unchanged.reshape(-1, *[1] * (new.ndim - 1)), old, new),
                search.ended,
                ended,
            ),
        )

    def _penalty(self, count: jax.Array) -> jax.Array:
        """Returns the length penalty of texts of `count` tokens."""
        return ((5.0 + count.astype(jnp.float32)) / 6.0) ** self._alpha

    def _rearranged(self, caches: Caches, row_R: jax.Array) -> Caches:
        """Returns the caches with other rows, the axis before that of the heads."""
        return jax.tree.map(lambda a: jnp.take(a, row_R, axis=a.ndim - 4, mode="clip"), caches)


def _best(parts: tuple[Beams, Beams], count: int) -> Beams:
    """Returns the best texts of two sets of texts of each row; the first wins ties."""
    tokens_BCN = jnp.concatenate([part.tokens_BWN for part in parts], axis=1)
    scores_BC = jnp.concatenate([part.scores_BW for part in parts], axis=1)
    scores_BW, kept_BW = jax.lax.top_k(scores_BC, count)
    return Beams(jnp.take_along_axis(tokens_BCN, kept_BW[..., None], axis=1), scores_BW)
