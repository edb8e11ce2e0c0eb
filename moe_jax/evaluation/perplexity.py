"""Held-out loss, perplexity and bits per byte, with the training router and a causal router.

Training minimises the former. For a router that is not causal it is too optimistic, since the
choice of experts leaks information about later tokens. The latter uses `Router.causal`, with which
text can be generated, and is the metric for comparing models.
"""

import dataclasses
import math
from collections.abc import Callable, Iterable

import jax
import jax.numpy as jnp
import numpy as np

from moe_jax.data.batch import Batch
from moe_jax.models.functional import LanguageModel, Variables
from moe_jax.training.step import LossConfig, forward, token_loss

# From (variables, batch) to (summed negative log-likelihood, targets, mean experts per token).
Evaluate = Callable[[Variables, Batch], tuple[jax.Array, jax.Array, jax.Array]]


@dataclasses.dataclass(frozen=True)
class Perplexity:
    """The result of one evaluation.

    Attributes:
        loss: mean negative log-likelihood per target, nats, routed as in training.
        causal_loss: the same with causal routing.
        tokens: number of targets.
        bytes: UTF-8 bytes of the text of the targets.
        mean_experts: experts per token, routed as in training; 0 for a dense model.
        causal_mean_experts: experts per token with causal routing.
    """

    loss: float
    causal_loss: float
    tokens: int
    bytes: int
    mean_experts: float = 0.0
    causal_mean_experts: float = 0.0

    @property
    def bits_per_byte(self) -> float:
        """Bits per byte of text, routed as in training."""
        return self._bits_per_byte(self.loss)

    @property
    def causal_bits_per_byte(self) -> float:
        """Bits per byte of text, routed causally."""
        return self._bits_per_byte(self.causal_loss)

    def __str__(self) -> str:
        """Returns the losses and the bits per byte in one line."""
        return (
            f"loss {self.loss:.3f} nats/token ({self.bits_per_byte:.3f} bits per byte) routed as "
            f"trained, {self.causal_loss:.3f} ({self.causal_bits_per_byte:.3f}) causal, on "
            f"{self.tokens:,} tokens, {self.bytes:,} bytes"
        )

    def _bits_per_byte(self, loss: float) -> float:
        return loss * self.tokens / math.log(2) / max(self.bytes, 1)

    def as_dict(self) -> dict[str, float]:
        """Returns all metrics by name, as written to `metrics.jsonl` and by `--json`."""
        return {
            "loss": self.loss,
            "perplexity": math.exp(min(self.loss, 700.0)),
            "bits_per_byte": self.bits_per_byte,
            "causal_loss": self.causal_loss,
            "causal_perplexity": math.exp(min(self.causal_loss, 700.0)),
            "causal_bits_per_byte": self.causal_bits_per_byte,
            "mean_experts": self.mean_experts,
            "causal_mean_experts": self.causal_mean_experts,
            "tokens": self.tokens,
            "bytes": self.bytes,
        }


def target_bytes(batches: Iterable[Batch], bytes_of_token: np.ndarray) -> int:
    """Returns the UTF-8 bytes of the text of all targets, given those of every token, [V]."""
    return sum(int(bytes_of_token[b.targets_BS][b.weights_BS > 0].sum()) for b in batches)


class Evaluator:
    """Evaluates a model on a fixed list of batches; compiles once per router."""

    def __init__(self, model: LanguageModel, batches: Iterable[Batch], bytes_of_token: np.ndarray):
        self._batches = list(batches)
        self._bytes = target_bytes(self._batches, bytes_of_token)
        self._partition = model.partition
        self._trained = _make_evaluate(model)
        causal = model.causal()
        self._causal = self._trained if causal is model else _make_evaluate(causal)

    def __call__(self, variables: Variables) -> Perplexity:
        """Evaluates the model with these variables."""
        loss, experts, tokens = self._run(self._trained, variables)
        if self._causal is self._trained:
            return Perplexity(loss, loss, tokens, self._bytes, experts, experts)
        causal_loss, causal_experts, _ = self._run(self._causal, variables)
        return Perplexity(loss, causal_loss, tokens, self._bytes, experts, causal_experts)

    def _run(self, evaluate: Evaluate, variables: Variables) -> tuple[float, float, int]:
        sums = np.zeros(3)
        for batch in self._batches:
            batch = self._partition.place_rows(batch)
            sums += np.asarray(jax.device_get(evaluate(variables, batch)), np.float64)
        nll, tokens, experts = sums
        return float(nll / max(tokens, 1)), float(experts / max(tokens, 1)), int(tokens)


def _make_evaluate(model: LanguageModel) -> Evaluate:
    """Returns a jitted function that computes the sums over one batch."""

    def evaluate(variables: Variables, batch: Batch) -> tuple[jax.Array, jax.Array, jax.Array]:
        output = forward(model, variables, batch)
        _, nll = token_loss(model, variables, output, batch, LossConfig())
        tokens = jnp.sum(batch.weights_BS)
        experts_L = output.routing.metrics.get("mean_experts", jnp.zeros(1))
        return nll, tokens, jnp.mean(experts_L) * tokens

    return jax.jit(evaluate)
