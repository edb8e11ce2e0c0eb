"""Log-likelihoods of given answers: rank classification (Raffel et al. 2020, Brown et al. 2020).

The score of an answer is the log-likelihood of its tokens given the inputs, the end-of-sequence
token included, summed over the tokens:

    score(a | x) = sum_t log p(a_t | x, a_1, ..., a_{t-1})

It is not divided by the number of tokens; `TaskScores.normalize_by_length` does that. A row is laid
out as in training: inputs, then the answer, then padding.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from moe_jax.data.batch import PAD, Batch
from moe_jax.models.functional import LanguageModel, Variables
from moe_jax.training.step import forward

# The shortest rows of causal scoring; others are padded to a power of two.
_SHORTEST_ROW = 32
# Called with the number of rows that are done and the number of all.
Progress = Callable[[int, int], None]


@dataclasses.dataclass(frozen=True)
class Answer:
    """Inputs and an answer whose log-likelihood is asked for.

    Attributes:
        inputs: tokens of the inputs.
        targets: tokens of the answer, at least one.
    """

    inputs: tuple[int, ...]
    targets: tuple[int, ...]

    @property
    def length(self) -> int:
        """Number of tokens in the row."""
        return len(self.inputs) + len(self.targets)


class LikelihoodScorer:
    """Computes log-likelihoods of answers with a model, with causal and with training routing.

    Causal scores do not depend on the other rows of a batch, its size, padding or the mesh. Rows
    are sorted by length, and equal ones are computed once. With training routing, in which tokens
    of a batch compete for experts, the batches are fixed: see `trained`.

    Args:
        model: the model.
        batch_size: B, rows in a batch of training routing.
        length: S, tokens in a row; no answer is longer.
    """

    def __init__(self, model: LanguageModel, batch_size: int, length: int):
        self._size, self._length = batch_size, length
        self._partition = model.partition
        self._trained = _compiled(model)
        causal = model.causal()
        self.routings_differ = causal is not model
        self._causal = _compiled(causal) if self.routings_differ else self._trained

    def causal(
        self, variables: Variables, answers: Sequence[Answer], progress: Progress | None = None
    ) -> np.ndarray:
        """Returns the log-likelihood of every answer with causal routing, float64 [R]."""
        scores: dict[Answer, float] = {}
        batches = list(self._batches(list(dict.fromkeys(answers))))
        total, width = sum(len(rows) for rows, _, _ in batches), _width(answers)
        for rows, size, length in batches:
            found = self._run(self._causal, variables, rows, (size, length, width))
            scores.update(zip(rows, found, strict=True))
            if progress is not None:
                progress(len(scores), total)
        return np.array([scores[answer] for answer in answers], np.float64)

    def trained(
        self,
        variables: Variables,
        answers: Sequence[Sequence[Answer]],
        progress: Progress | None = None,
    ) -> list[np.ndarray]:
        """Returns log-likelihoods with training routing, float64 [number of answers] an example.

        A batch is B consecutive examples, each with its first answer; then the same with their
        second answer, and so on. The last batch, and examples with fewer answers than others, are
        padded with empty rows, whose tokens are not routed. So no two answers of one example
        compete for experts.

        Args:
            variables: variables of the model.
            answers: the answers of each example.
            progress: is told the number of rows done.
        """
        scores = [np.zeros(len(own)) for own in answers]
        width = _width([answer for own in answers for answer in own])
        shape, total, done = (self._size, self._length, width), sum(map(len, answers)), 0
        for places in _chunks(range(len(answers)), self._size):
            for number in range(max(len(answers[place]) for place in places)):
                having = [place for place in places if number < len(answers[place])]
                rows = [answers[place][number] for place in having]
                found = self._run(self._trained, variables, rows, shape)
                for place, score in zip(having, found, strict=True):
                    scores[place][number] = score
                done += len(rows)
                if progress is not None:
                    progress(done, total)
        return scores

    def _batches(self, rows: list[Answer]) -> Iterator[tuple[Sequence[Answer], int, int]]:
        """Yields rows, their number in a batch and the length that they are padded to.

        Short rows are padded to less than S, and a batch has more of them, so that it has as many
        tokens as in training. Rows that would not fill one are padded to twice the length, with
        others: every length is a program to compile.
        """
        rest = sorted(rows, key=lambda row: row.length)
        length = min(_SHORTEST_ROW, self._length)
        while rest:
            size = self._size * (self._length // length)
            fitting = [row for row in rest if row.length <= length]
            if length == self._length or len(fitting) >= size:
                assert length < self._length or fitting == rest, "an answer is longer than a row"
                rest = rest[len(fitting) :]
                for chunk in _chunks(fitting, size):
                    yield chunk, size, length
            length = min(2 * length, self._length)

    def _run(
        self,
        compiled: Callable[..., jax.Array],
        variables: Variables,
        rows: Sequence[Answer],
        shape: tuple[int, int, int],
    ) -> list[float]:
        """Returns the log-likelihoods of rows, padded to a batch of `shape` (B, S, T)."""
        size, length, width = shape
        batch = make_answer_batch(rows, size, length)
        starts_B, ends_B = np.zeros(size, np.int32), np.zeros(size, np.int32)
        starts_B[: len(rows)] = [len(row.inputs) for row in rows]
        ends_B[: len(rows)] = [row.length for row in rows]
        placed = self._partition.place_rows((batch, starts_B, ends_B))
        # No answer of this batch is longer than a row of it.
        token_scores_BT = np.asarray(compiled(variables, *placed, min(width, length)), np.float64)
        return token_scores_BT.sum(1)[: len(rows)].tolist()


def make_answer_batch(rows: Sequence[Answer], size: int, length: int) -> Batch:
    """Returns rows as a batch [size, length], as seqio's prefix LM converter makes them.

    Rows that are missing are padding.
    """
    targets_BS: Any = np.full((size, length), PAD, np.int32)
    weights_BS: Any = np.zeros((size, length), np.float32)
    prefix_BS: Any = np.zeros((size, length), np.int32)
    for index, row in enumerate(rows):
        start, end = len(row.inputs), row.length
        targets_BS[index, :end] = row.inputs + row.targets
        weights_BS[index, start:end] = 1.0
        # The inputs, shifted right by one.
        prefix_BS[index, : min(start + 1, end)] = 1
    inputs_BS: Any = np.pad(targets_BS[:, :-1], ((0, 0), (1, 0)), constant_values=PAD)
    return Batch(inputs_BS, targets_BS, weights_BS, prefix_BS=prefix_BS)


def _compiled(model: LanguageModel) -> Callable[..., jax.Array]:
    """Returns the compiled log-likelihoods of answers' tokens, [B, T]; 0 after their end."""

    def token_scores(
        variables: Variables, batch: Batch, starts_B: jax.Array, ends_B: jax.Array, width: int
    ) -> jax.Array:
        hidden_BSD = forward(model, variables, batch).hidden_BSD
        decoder = model.bind(variables)
        at_BT = starts_B[:, None] + jnp.arange(width)
        counts_BT = at_BT < ends_B[:, None]
        at_BT = jnp.minimum(at_BT, hidden_BSD.shape[1] - 1)
        hidden_BTD = jnp.take_along_axis(hidden_BSD, at_BT[:, :, None], axis=1)
        targets_BT = jnp.take_along_axis(jnp.asarray(batch.targets_BS), at_BT, axis=1)

        def one(carry: None, place: tuple[jax.Array, jax.Array]) -> tuple[None, jax.Array]:
            # One place at a time, so that no more than [B, V] logits are in memory.
            hidden_BD, target_B = place
            logits_BV = decoder.logits(hidden_BD[:, None])[:, 0]
            target_B1 = jnp.take_along_axis(logits_BV, target_B[:, None], axis=1)
            return carry, target_B1[:, 0] - jax.nn.logsumexp(logits_BV, axis=1)

        places = (hidden_BTD.swapaxes(0, 1), targets_BT.T)
        scores_TB: jax.Array
        _, scores_TB = jax.lax.scan(one, None, places)
        return jnp.where(counts_BT, scores_TB.T, 0.0)

    replicated: Any = model.partition.replicated
    return jax.jit(token_scores, static_argnums=4, out_shardings=replicated)


def _width(answers: Sequence[Answer]) -> int:
    """Returns a power of two that no answer has more tokens than: few programs are compiled."""
    longest = max((len(answer.targets) for answer in answers), default=1)
    return 1 << (longest - 1).bit_length()


def _chunks(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    for first in range(0, len(items), size):
        yield items[first : first + size]
