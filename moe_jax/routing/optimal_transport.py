"""The entropy-regularised linear program of capped expert choice (Zhou et al. 2022, section 3.3).

For a pool of N tokens with scores S [N, E], k tokens per expert and at most b experts per token:

    max_A <S^T, A> + lambda H(A),   H(A) = -sum A log A,   A [E, N]
    s.t.  sum_n A[e, n] = k,   sum_e A[e, n] <= b,   0 <= A[e, n] <= 1

With the Lagrange multipliers u and v of the sums, in units of the scores, the solution is

    A[e, n] = min(1, exp((S[n, e] + u[e] - v[n]) / lambda)),   v >= 0

where the multiplier of A <= 1 is what min(1, .) cuts off. One iteration moves u to where each row
has the sum k if the m entries with A = 1 stay those that they are, and the others, with the sum U,
all move by the same factor:

    u[e] += lambda log((k - m) / U)

and then v[n] likewise with b, kept at 0 or above. Where m >= k, the step is
lambda log(k / (m + U)). The paper's algorithm (Dykstra's) takes this step everywhere: where most of
a row's k entries are 1, its sum hardly moves, and after 100 iterations the sums can be off by
several tokens. The solution is the same. Two precautions: no step is longer than 2 lambda; and an
entry changes from U to m gradually, while the exponent grows from 0 to 1, so that rounding does not
decide what a step is.

lambda decreases geometrically from 0.1 over the first 90 % of the iterations, each of which starts
from the multipliers of the one before. (The authors' code, lingvo's
`differentiable_assignment.max_assignment`, also decreases lambda, from 1.)
"""

import jax
import jax.numpy as jnp

from moe_jax.types import CountP, MaskPN, ScoresPEN

# Stands in for minus infinity, of which a difference would be no number.
_NEVER = -1e20
_FIRST_REGULARISATION = 0.1
_FALLING_SHARE = 0.9
# Of one iteration, in units of lambda.
_LONGEST_STEP = 2.0


def capped_transport(
    score_PEN: ScoresPEN,
    k_P: CountP,
    cap: int,
    mask_PN: MaskPN,
    regularisation: float = 1e-3,
    iterations: int = 100,
) -> ScoresPEN:
    """Returns (S + u - v) / lambda, from which A = exp(min(., 0)), [P, E, N] float32.

    The result has the same order as A, and also orders the tokens whose A is 1. It is -inf (A = 0)
    for padding and in pools with k = 0. There is no gradient.

    Args:
        score_PEN: the scores S^T.
        k_P: tokens per expert in each pool, int32; may be 0.
        cap: maximum number of experts per token, b.
        mask_PN: true for real tokens.
        regularisation: lambda (0.001 in the paper).
        iterations: number of iterations (100 in the paper, of Dykstra's algorithm).
    """
    score_PEN = jax.lax.stop_gradient(score_PEN).astype(jnp.float32)
    score_PEN = jnp.where(mask_PN[:, None, :], score_PEN, _NEVER)
    k_P1 = jnp.maximum(k_P, 1).astype(jnp.float32)[:, None]

    def iterate(i: jax.Array, duals: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        u_PE, v_PN = duals
        scale = _regularisation(i, regularisation, iterations)
        z_PEN = (score_PEN + u_PE[..., None] - v_PN[:, None, :]) / scale
        u_PE += scale * _log_factor(z_PEN, k_P1, axis=2)
        z_PEN = (score_PEN + u_PE[..., None] - v_PN[:, None, :]) / scale
        v_PN = jnp.maximum(v_PN - scale * _log_factor(z_PEN, cap, axis=1), 0.0)
        return u_PE, v_PN

    # With this u, S + u is at most 0.
    start = (-score_PEN.max(-1), jnp.zeros(mask_PN.shape, jnp.float32))
    u_PE, v_PN = jax.lax.fori_loop(0, iterations, iterate, start)
    log_a_PEN = (score_PEN + u_PE[..., None] - v_PN[:, None, :]) / regularisation
    routed_PEN = mask_PN[:, None, :] & (k_P > 0)[:, None, None]
    return jnp.where(routed_PEN, log_a_PEN, -jnp.inf)


def _log_factor(z_PEN: ScoresPEN, target: jax.Array | int, axis: int) -> jax.Array:
    """Returns the change of z that brings sum min(1, exp(z)) over an axis closer to the target."""
    # Of an entry with A = 1 this much counts as full, and the rest, A - full, as the others.
    full_PEN = jnp.clip(z_PEN, 0.0, 1.0)
    full = full_PEN.sum(axis)
    others = (jnp.exp(jnp.minimum(z_PEN, 0.0)) - full_PEN).sum(axis)
    factor = jnp.where(full < target, (target - full) / others, target / (full + others))
    return jnp.clip(jnp.log(factor), -_LONGEST_STEP, _LONGEST_STEP)


def _regularisation(iteration: jax.Array, last: float, iterations: int) -> jax.Array:
    """Returns lambda of an iteration: decreasing from 0.1, or constant if `last` is above 0.1."""
    first = max(_FIRST_REGULARISATION, last)
    progress = jnp.minimum(iteration / (_FALLING_SHARE * iterations), 1.0)
    return first * (last / first) ** progress
