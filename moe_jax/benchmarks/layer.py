"""A feed-forward layer, dense or routed, with its backward pass, for the benchmarks."""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from moe_jax.dispatch import get_dispatch
from moe_jax.dispatch.network import ExpertNetwork
from moe_jax.routing.assignment import Assignment, RouterScores
from moe_jax.routing.router import Router
from moe_jax.routing.scores import router_logits

# Positions in a row; sizes hold whole rows.
_LENGTH = 256


@dataclasses.dataclass(frozen=True)
class Size:
    """The shape of a layer.

    Attributes:
        tokens: T.
        width: D.
        hidden: F, of one expert.
        num_experts: E.
    """

    tokens: int
    width: int
    hidden: int
    num_experts: int

    @property
    def rows(self) -> int:
        """Number of rows in the batch."""
        return self.tokens // _LENGTH


SIZES = {
    # Smoke tests.
    "XS": Size(512, 32, 64, 8),
    "S": Size(4096, 256, 1024, 16),
    "M": Size(4096, 512, 2048, 32),
    "L": Size(8192, 768, 3072, 64),
}
Arrays = dict[str, jax.Array]


def random_inputs(size: Size, dtype: str) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns activations [B, S, D], the gradient of the output, and token ids [B, S]."""
    shape = (size.rows, _LENGTH, size.width)
    x, dy = (jax.random.normal(jax.random.key(i), shape).astype(dtype) for i in (0, 1))
    return x, dy, jax.random.randint(jax.random.key(2), shape[:2], 1, 32000)


def dense_parameters(size: Size, active_experts: float, dtype: str) -> Arrays:
    """Returns the weights of a dense layer with the FLOPs of so many experts per token."""
    shape = (size.width, round(active_experts * size.hidden))
    return {name: _weight(i, shape, size.width, dtype) for i, name in enumerate(("wi", "wo"))}


def dense(params: Arrays, x_BSD: jax.Array) -> jax.Array:
    """Runs a dense layer in its best layout on CPU: one axis of tokens, W2 stored like W1."""
    x_TD = x_BSD.reshape(-1, x_BSD.shape[-1])
    hidden_TF = jax.nn.gelu(x_TD @ params["wi"])
    return jnp.einsum("tf,df->td", hidden_TF, params["wo"]).reshape(x_BSD.shape)


def expert_parameters(size: Size, dtype: str) -> Arrays:
    """Returns the weights of the experts, and the router's matrix in float32."""
    shape = (size.num_experts, size.width, size.hidden)
    params = {name: _weight(i, shape, size.width, dtype) for i, name in enumerate(("wi", "wo"))}
    params["router"] = _weight(2, (size.width, size.num_experts), size.width, "float32")
    return params


def route(
    router: Router, router_kernel: jax.Array, x_BSD: jax.Array, tokens_BS: jax.Array
) -> Assignment:
    """Routes as in training."""
    pool, key = router.pool, jax.random.key(7)
    positions_BS = jnp.broadcast_to(jnp.arange(_LENGTH, dtype=jnp.int32), tokens_BS.shape)
    x_PND = pool.split(x_BSD)
    if router.is_learned:
        logits_PNE = router_logits(x_PND, router_kernel, router.input_jitter, key)
    else:
        logits_PNE = jnp.zeros((*x_PND.shape[:2], router_kernel.shape[-1]), jnp.float32)
    scores = RouterScores.from_logits(
        logits_PNE,
        jnp.ones(x_PND.shape[:2], jnp.bool_),
        tokens_PN=pool.split(tokens_BS),
        positions_PN=pool.split(positions_BS),
        time_PN=pool.split(positions_BS),
        key=key,
    )
    return router(scores, router.init_state(router_kernel.shape[-1])).assignment


def routed(
    router: Router, dispatch: str, tokens_BS: jax.Array, params: Arrays, x_BSD: jax.Array
) -> jax.Array:
    """Runs a mixture-of-experts layer."""
    assignment = route(router, params["router"], x_BSD, tokens_BS)
    experts = ExpertNetwork(params["wi"], params["wo"])
    y_PND = get_dispatch(dispatch)(assignment, router.pool.split(x_BSD), experts)
    return router.pool.join(y_PND, *x_BSD.shape[:2])


def forward_and_backward(layer: Callable, params: Arrays, x: jax.Array, dy: jax.Array) -> tuple:
    """Returns the output and the gradients with respect to weights and input."""
    y, backward = jax.vjp(layer, params, x)
    return y, backward(dy)


def step_of(layer: Callable) -> Callable:
    """Returns the function of a layer's forward and backward pass."""
    return functools.partial(forward_and_backward, layer)


def _weight(seed: int, shape: tuple[int, ...], fan_in: int, dtype: str) -> jax.Array:
    return (jax.random.normal(jax.random.key(10 + seed), shape) * fan_in**-0.5).astype(dtype)
