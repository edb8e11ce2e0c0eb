"""The linear program of capped expert choice, with entropy (Zhou et al. 2022, section 3.3).

In a pool of N tokens with scores S [N, E], for k tokens per expert and a cap of b experts per
token:

    max_A <S^T, A> + lambda H(A),   H(A) = -sum A log A,   A [E, N]
    s.t.  sum_n A[e, n] = k,   sum_e A[e, n] <= b,   0 <= A[e, n] <= 1

The solution is the Kullback-Leibler projection of exp(S^T / lambda) onto the three sets, and
Dykstra's algorithm finds it by projecting onto one after the other, with a correction for those
that are no equalities. The corrections are the multipliers of the sets. With u, v and w for them,
in units of the scores,

    lambda log A[e, n] = S[n, e] + u[e] - v[n] - w[e, n],   v, w >= 0

and one iteration, everything in logarithms, is

    u[e] = lambda (log k - logsumexp_n((S - v - w) / lambda))
    v[n] = lambda max(0, logsumexp_e((S + u - w) / lambda) - log b)
    w[e, n] = max(0, S + u - v)

w is worked out where it is needed, and no error adds up over the iterations. These maximise the
dual function one multiplier at a time, so they get there from any start. From 0 and with a small
lambda, an expert's row gains about one token per iteration; so lambda falls geometrically from 0.1
over the first 90 % of the iterations, each starting where the one before has got to. (The authors'
code, lingvo's `differentiable_assignment.max_assignment`, lets it fall as well, from 1.)
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
    """Returns (S + u - v) / lambda, of which A = exp(min(., 0)), [P, E, N] float32.

    Where A is 1 this is log A + w / lambda: it has the order of A, and tells apart tokens whose
    A is 1. Padding, and pools with k = 0, have -inf, so A = 0. No gradient.

    Args:
        score_PEN: the scores S^T.
        k_P: tokens per expert in each pool, int32; may be 0.
        cap: b, experts per token.
        mask_PN: real tokens.
        regularisation: lambda (the paper's is 0.001).
        iterations: of Dykstra's algorithm (the paper's is 100).
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

    # With this u, S + u is at most 0: w starts at 0.
    start = (-score_PEN.max(-1), jnp.zeros(mask_PN.shape, jnp.float32))
    u_PE, v_PN = jax.lax.fori_loop(0, iterations, iterate, start)
    log_a_PEN = (score_PEN + u_PE[..., None] - v_PN[:, None, :]) / regularisation
    routed_PEN = mask_PN[:, None, :] & (k_P > 0)[:, None, None]
    return jnp.where(routed_PEN, log_a_PEN, -jnp.inf)


def _regularisation(iteration: jax.Array, last: float, iterations: int) -> jax.Array:
    """Returns lambda of an iteration, which falls to its last value unless that is above 0.1."""
    first = max(_FIRST_REGULARISATION, last)
    progress = jnp.minimum(iteration / (_FALLING_SHARE * iterations), 1.0)
    return first * (last / first) ** progress
