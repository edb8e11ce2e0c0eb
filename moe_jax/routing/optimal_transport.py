"""The entropy-regularised linear program of capped expert choice (Zhou et al. 2022, section 3.3).

For a pool of N tokens with scores S [N, E], k tokens per expert and at most b experts per token:

    max_A <S^T, A> + lambda H(A),   H(A) = -sum A log A,   A [E, N]
    s.t.  sum_n A[e, n] = k,   sum_e A[e, n] <= b,   0 <= A[e, n] <= 1

The solution is the Kullback-Leibler projection of exp(S^T / lambda) onto the three constraint sets.
Dykstra's algorithm computes it by projecting onto one set after the other, with corrections for the
inequality constraints. The corrections are the Lagrange multipliers. With the multipliers u, v and
w of the three sets, in units of the scores,

    lambda log A[e, n] = S[n, e] + u[e] - v[n] - w[e, n],   v, w >= 0

and one iteration, in log space, is

    u[e] = lambda (log k - logsumexp_n((S - v - w) / lambda))
    v[n] = lambda max(0, logsumexp_e((S + u - w) / lambda) - log b)
    w[e, n] = max(0, S + u - v)

w is recomputed where it is needed, so that errors do not accumulate over the iterations. The
updates are coordinate ascent on the dual function, which converges from any starting point. From 0
and with a small lambda, an expert's row gains only about one token per iteration; lambda therefore
decreases geometrically from 0.1 over the first 90 % of the iterations, each of which starts from
the multipliers of the one before. (The authors' code, lingvo's
`differentiable_assignment.max_assignment`, also decreases lambda, from 1.)
"""

import jax
import jax.numpy as jnp

from moe_jax.types import CountP, MaskPN, ScoresPEN

# Stands in for minus infinity, of which a difference would be no number.
_NEVER = -1e20
_FIRST_REGULARISATION = 0.1
_FALLING_SHARE = 0.9


def capped_transport(
    score_PEN: ScoresPEN,
    k_P: CountP,
    cap: int,
    mask_PN: MaskPN,
    regularisation: float = 1e-3,
    iterations: int = 100,
) -> ScoresPEN:
    """Returns (S + u - v) / lambda, from which A = exp(min(., 0)), [P, E, N] float32.

    The result has the same order as A; where A is 1 it is w / lambda, which also orders the tokens
    whose A is 1. It is -inf (A = 0) for padding and in pools with k = 0. There is no gradient.

    Args:
        score_PEN: the scores S^T.
        k_P: tokens per expert in each pool, int32; may be 0.
        cap: maximum number of experts per token, b.
        mask_PN: true for real tokens.
        regularisation: lambda (0.001 in the paper).
        iterations: number of iterations of Dykstra's algorithm (100 in the paper).
    """
    score_PEN = jax.lax.stop_gradient(score_PEN).astype(jnp.float32)
    score_PEN = jnp.where(mask_PN[:, None, :], score_PEN, _NEVER)
    log_k_P1 = jnp.log(jnp.maximum(k_P, 1).astype(jnp.float32))[:, None]
    log_cap = jnp.log(jnp.float32(cap))

    def iterate(i: jax.Array, duals: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        u_PE, v_PN = duals
        scale = _regularisation(i, regularisation, iterations)
        y_PEN = score_PEN + u_PE[..., None] - v_PN[:, None, :]
        w_PEN = jnp.maximum(y_PEN, 0.0)
        u_PE += scale * (log_k_P1 - jax.nn.logsumexp((y_PEN - w_PEN) / scale, axis=-1))
        y_PEN = (score_PEN + u_PE[..., None] - w_PEN) / scale
        v_PN = scale * jnp.maximum(jax.nn.logsumexp(y_PEN, axis=1) - log_cap, 0.0)
        return u_PE, v_PN

    # With this u, S + u is at most 0, so that w is 0.
    start = (-score_PEN.max(-1), jnp.zeros(mask_PN.shape, jnp.float32))
    u_PE, v_PN = jax.lax.fori_loop(0, iterations, iterate, start)
    log_a_PEN = (score_PEN + u_PE[..., None] - v_PN[:, None, :]) / regularisation
    routed_PEN = mask_PN[:, None, :] & (k_P > 0)[:, None, None]
    return jnp.where(routed_PEN, log_a_PEN, -jnp.inf)


def _regularisation(iteration: jax.Array, last: float, iterations: int) -> jax.Array:
    """Returns lambda of an iteration: decreasing from 0.1, or constant if `last` is above 0.1."""
    first = max(_FIRST_REGULARISATION, last)
    progress = jnp.minimum(iteration / (_FALLING_SHARE * iterations), 1.0)
    return first * (last / first) ** progress
