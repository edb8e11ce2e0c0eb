"""The language-model loss over a large vocabulary, without storing all logits.

Tokens are processed in chunks. For a gradient, the logits, loss and gradient of each chunk are
computed together and only the gradients with respect to activations and embedding are stored:
three matrix products in total, while recomputing the logits takes a fourth and storing them takes
[T, V] memory.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp

# Tokens per chunk, chosen by measurement on CPU (docs/results/speed.md).
DEFAULT_CHUNK = 2048


@dataclasses.dataclass(frozen=True)
class VocabularyLossOptions:
    """Options of `vocabulary_loss`, static under compilation.

    Attributes:
        z_loss: coefficient of the squared log partition (GLaM and T5X: 1e-4).
        chunk: number of tokens whose logits are in memory at a time.
        vocabulary_axis: inside `jax.shard_map`, the mesh axis that the rows of the embedding are
            sharded along; the gradient of the activations is then a partial sum over that axis.
    """

    z_loss: float = 0.0
    chunk: int = DEFAULT_CHUNK
    vocabulary_axis: str | None = None


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def vocabulary_loss(
    hidden_TD: jax.Array,
    embedding_VD: jax.Array,
    targets_T: jax.Array,
    weights_T: jax.Array,
    options: VocabularyLossOptions,
) -> tuple[jax.Array, jax.Array]:
    """Sums the cross-entropy of tied-embedding logits over tokens.

    With logits = hidden embedding^T in float32 and log Z their logsumexp:

        nll = sum_t weight_t (log Z_t - logit_t[target_t])
        objective = nll + z_loss * sum_t weight_t (log Z_t)^2

    Args:
        hidden_TD: final activations in the compute precision.
        embedding_VD: float32; cast to the activations' precision for the matrix products.
        targets_T: target tokens.
        weights_T: float32, 0 for tokens that do not count.
        options: z-loss, chunk size and sharding of the vocabulary.

    Returns:
        (objective, nll), both float32 scalars in nats; only the objective has a gradient, with
        respect to the activations and the embedding.
    """
    return _forward(hidden_TD, embedding_VD, targets_T, weights_T, options, False)[:2]


def _forward(
    hidden_TD: jax.Array,
    embedding_VD: jax.Array,
    targets_T: jax.Array,
    weights_T: jax.Array,
    options: VocabularyLossOptions,
    with_gradient: bool,
) -> tuple[jax.Array, jax.Array, jax.Array | None, jax.Array | None]:
    z_loss, axis = options.z_loss, options.vocabulary_axis
    tokens, width = hidden_TD.shape
    chunk = min(options.chunk, tokens)
    padding = -tokens % chunk
    chunks = (
        jnp.pad(hidden_TD, ((0, padding), (0, 0))).reshape(-1, chunk, width),
        jnp.pad(targets_T, (0, padding)).reshape(-1, chunk),
        jnp.pad(weights_T, (0, padding)).reshape(-1, chunk),
    )
    embedding = embedding_VD.astype(hidden_TD.dtype)

    def one_chunk(carry: tuple, xs: tuple) -> tuple:
        objective, nll, d_embedding = carry
        hidden_UD, targets_U, weights_U = xs
        logits_UV = _matmul("ud,vd->uv", hidden_UD, embedding)
        log_z_U = log_partition(logits_UV, axis)
        target_U = _target_logits(logits_UV, targets_U, axis)
        nll += jnp.sum(weights_U * (log_z_U - target_U))
        objective += jnp.sum(weights_U * (log_z_U - target_U + z_loss * jnp.square(log_z_U)))
        if not with_gradient:
            return (objective, nll, d_embedding), None
        p_UV = jnp.exp(logits_UV - log_z_U[:, None]) * (1 + 2 * z_loss * log_z_U)[:, None]
        hit_UV = _hits(targets_U, embedding.shape[0], axis)
        d_logits_UV = ((p_UV - hit_UV) * weights_U[:, None]).astype(hidden_UD.dtype)
        d_embedding += _matmul("uv,ud->vd", d_logits_UV, hidden_UD)
        d_hidden_UD = _matmul("uv,vd->ud", d_logits_UV, embedding).astype(hidden_UD.dtype)
        return (objective, nll, d_embedding), d_hidden_UD

    zero = jnp.zeros((), jnp.float32)
    d_embedding = jnp.zeros(embedding_VD.shape, jnp.float32) if with_gradient else None
    d_hidden: jax.Array | None
    (objective, nll, d_embedding), d_hidden = jax.lax.scan(
        one_chunk, (zero, zero, d_embedding), chunks
    )
    if d_hidden is not None:
        d_hidden = d_hidden.reshape(-1, width)[:tokens]
    return objective, nll, d_hidden, d_embedding


def log_partition(logits_UV: jax.Array, axis: str | None) -> jax.Array:
    """Returns the logsumexp over the vocabulary, [U]; `axis` is the mesh axis of its shards."""
    if axis is None:
        return jax.nn.logsumexp(logits_UV, axis=-1)
    largest_U = jax.lax.pmax(jax.lax.stop_gradient(logits_UV.max(-1)), axis)
    return largest_U + jnp.log(jax.lax.psum(jnp.exp(logits_UV - largest_U[:, None]).sum(-1), axis))


def _hits(targets_U: jax.Array, vocabulary: int, axis: str | None) -> jax.Array:
    """Returns the one-hot targets within the local shard of the vocabulary, [U, V] bool."""
    first = 0 if axis is None else jax.lax.axis_index(axis) * vocabulary
    token_V = first + jnp.arange(vocabulary, dtype=targets_U.dtype)
    return token_V == targets_U[:, None]


def _target_logits(logits_UV: jax.Array, targets_U: jax.Array, axis: str | None) -> jax.Array:
    if axis is None:
        return jnp.take_along_axis(logits_UV, targets_U[:, None], axis=-1)[:, 0]
    hit_UV = _hits(targets_U, logits_UV.shape[-1], axis)
    return jax.lax.psum(jnp.where(hit_UV, logits_UV, 0.0).sum(-1), axis)


def _matmul(equation: str, a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.einsum(equation, a, b, preferred_element_type=jnp.float32)


def _vjp_forward(
    hidden_TD: jax.Array,
    embedding_VD: jax.Array,
    targets_T: jax.Array,
    weights_T: jax.Array,
    options: VocabularyLossOptions,
) -> tuple:
    objective, nll, d_hidden, d_embedding = _forward(
        hidden_TD, embedding_VD, targets_T, weights_T, options, True
    )
    return (objective, nll), (d_hidden, d_embedding)


def _vjp_backward(options: VocabularyLossOptions, residuals: tuple, cotangents: tuple) -> tuple:
    d_hidden, d_embedding = residuals
    scale, _ = cotangents
    if options.vocabulary_axis is not None:
        # The objective is replicated along the axis, and every device has a part of the cotangent.
        scale = jax.lax.psum(scale, options.vocabulary_axis)
    # Rounds the product, not its factors: 1 / tokens in bfloat16 has an error of up to 0.2%.
    d_hidden = (scale * d_hidden.astype(jnp.float32)).astype(d_hidden.dtype)
    return d_hidden, scale * d_embedding, None, None


vocabulary_loss.defvjp(_vjp_forward, _vjp_backward)
