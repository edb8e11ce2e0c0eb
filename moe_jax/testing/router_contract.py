"""Conformance checks of routers: the requirements of models, training and evaluation.

| check       | fails for a router that                                                  |
|-------------|--------------------------------------------------------------------------|
| value       | is not hashable, or not equal to its copy: every step is recompiled      |
| assignment  | has an expert index out of range, duplicate choices, or routed padding,  |
|             | or not as many slots as `slots_per_token` says                           |
| dispatch    | has an assignment for which a dispatch differs from the one-hot oracle   |
| gradient    | gets no gradient                                                         |
| causality   | has `is_causal` True, but depends on later positions                     |
| causal form | has a `causal()` that depends on later positions or on other rows        |
| state       | changes names, shapes or types of its state                              |
| compilation | is compiled again for another batch of the same shape                    |
| mesh        | has different assignments, losses or metrics on four devices than on one |
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from moe_jax.dispatch import DISPATCHES
from moe_jax.routing.assignment import Assignment, Slots
from moe_jax.routing.pools import Pool
from moe_jax.routing.router import Router
from moe_jax.testing.routed_layer import (
    Inputs,
    changed,
    chosen_PNE,
    compiled,
    layer,
    logits,
    random_inputs,
    run_layer,
    run_router,
    scores_of_batch,
)
from moe_jax.testing.shards import NUM_SHARDS, different, over_shards

# Largest rounding error from another order of summation, relative to the largest output.
_ROUNDING = 1e-5


class RouterContractError(AssertionError):
    """Raised for a router that does not conform to the `Router` interface, with the reason."""


def check_router(
    router: Router, *, batch: int = 8, length: int = 16, num_experts: int = 4, seed: int = 0
) -> None:
    """Checks that a router conforms to the interface that models, training and evaluation use.

    The checks run a layer of width 8 on random inputs, on any platform, in a few seconds. With
    fewer than four devices, the mesh check runs four shards in one program on one device.

    Args:
        router: the router, with the settings to check.
        batch: number of rows, a multiple of 8.
        length: number of positions in a row.
        num_experts: number of experts, E.
        seed: seed of the random inputs.

    Raises:
        RouterContractError: for the first check that fails.
        UserError: if the router does not support these sizes (`Router.check`).
    """
    router.check(batch, length, num_experts)
    _check_value(router)
    inputs = random_inputs(batch, length, num_experts, seed)
    try:
        for key in (None, jax.random.key(seed)):
            _check_assignment(router, inputs, key)
            _check_dispatch(router, inputs, key)
            _check_causality(router, inputs, key)
        _check_gradient(router, inputs)
        _check_causal_form(router, inputs)
        _check_state(router, inputs)
        _check_compilation(router, inputs, seed)
        _check_mesh(router, inputs)
    except jax.errors.JAXTypeError as error:
        reason = str(error).splitlines()[0]
        raise RouterContractError(
            f"{type(router).__name__}: shapes or branches depend on values: {reason}"
        ) from None


def _require(condition: object, router: Router, reason: str) -> None:
    if not condition:
        raise RouterContractError(f"{type(router).__name__}: {reason}")


def _copy(router: Any, **changes: Any) -> Router:
    copy: Router = dataclasses.replace(router, **changes)
    return copy


def _check_value(router: Router) -> None:
    _require(dataclasses.is_dataclass(router), router, "a router is a frozen dataclass")
    try:
        hash(router)
    except TypeError as error:
        _require(False, router, f"it has to be hashable, with frozen=True and tuples: {error}")
    _require(router == _copy(router), router, "it does not equal its own copy")
    _require(
        router.experts_per_token > 0, router, f"experts_per_token is {router.experts_per_token}"
    )


def _check_slots(router: Router, assignment: Assignment, tokens: int) -> None:
    """Checks `slots_per_token` against the slots of an assignment, E C / N before rounding."""
    slots = router.slots_per_token
    if slots is None:
        return
    if isinstance(assignment, Slots):
        capacity = assignment.token_index_PEC.shape[-1]
    elif assignment.capacity is not None:
        capacity = assignment.capacity
    else:
        raise RouterContractError(
            f"{type(router).__name__}: slots_per_token is {slots}, but the assignment has no "
            "capacity: it is None then"
        )
    experts = assignment.num_experts
    _require(
        abs(experts * capacity / tokens - min(slots, experts)) <= experts / tokens,
        router,
        f"slots_per_token is {slots}, but the assignment has {experts} x {capacity} slots for "
        f"{tokens} tokens",
    )


def _check_assignment(router: Router, inputs: Inputs, key: jax.Array | None) -> None:
    routed = jax.device_get(run_router(router, inputs, key))
    mask_PN = np.asarray(router.pool.split(inputs.mask_BS))
    assignment, num_experts = routed.assignment, inputs.kernel_DE.shape[1]
    _require(
        assignment.num_experts == num_experts,
        router,
        f"the assignment has {assignment.num_experts} experts, the layer {num_experts}",
    )
    _check_slots(router, assignment, mask_PN.shape[1])
    try:
        count_PNE = chosen_PNE(assignment, mask_PN.shape[1])
    except IndexError as error:
        raise RouterContractError(
            f"{type(router).__name__}: an index of a token or an expert is out of range: {error}"
        ) from None
    _require(
        not count_PNE[~mask_PN].any(), router, "padding is routed: leave out what mask_PN does"
    )
    _require(count_PNE.max() <= 1, router, "an expert takes the same token twice")
    _require(count_PNE.any(), router, "no token is routed")
    weight = assignment.weight_PEC if isinstance(assignment, Slots) else assignment.weight_PNK
    taken = assignment.filled_PEC if isinstance(assignment, Slots) else assignment.chosen_PNK
    _require(np.isfinite(weight).all(), router, "a combine weight is not finite")
    _require(weight.dtype == np.float32, router, f"combine weights are {weight.dtype}, not float32")
    _require(
        not weight[~taken].any(), router, "a choice that is not made has a weight other than 0"
    )
    values = {**routed.losses, **routed.metrics, **routed.statistics}
    wrong = [name for name, value in values.items() if not np.isfinite(value).all()]
    _require(not wrong, router, f"not finite: {', '.join(wrong)}")
    wrong = [name for name, value in routed.losses.items() if np.shape(value)]
    _require(not wrong, router, f"losses are scalars, but not {', '.join(wrong)}")


def _check_dispatch(router: Router, inputs: Inputs, key: jax.Array | None) -> None:
    expected = np.asarray(run_layer(router, "oracle", inputs, key))
    for name in sorted(set(DISPATCHES) - {"oracle"}):
        y_BSD = np.asarray(run_layer(router, name, inputs, key))
        _require(
            _is_close(y_BSD, expected),
            router,
            f"the dispatch {name!r} differs from the oracle by {np.abs(y_BSD - expected).max():.2g}"
            ": are the slots of an expert distinct, and below the capacity?",
        )


def _is_close(actual: np.ndarray, expected: np.ndarray) -> bool:
    scale = max(float(np.abs(expected).max()), 1e-3)
    return bool(np.abs(actual - expected).max() <= _ROUNDING * scale)


def _check_gradient(router: Router, inputs: Inputs) -> None:
    if not router.is_learned:
        return

    def output(kernel_DE: jax.Array, router: Router, inputs: Inputs) -> jax.Array:
        y_BSD = layer(router, "oracle", dataclasses.replace(inputs, kernel_DE=kernel_DE), None)
        return jnp.sum(y_BSD * jnp.cos(jnp.arange(y_BSD.size)).reshape(y_BSD.shape))

    gradient = compiled(jax.grad(output), static=(1,))(inputs.kernel_DE, router, inputs)
    _require(jnp.isfinite(gradient).all(), router, "the router's gradient is not finite")
    _require(
        jnp.abs(gradient).max() > 1e-6,
        router,
        "the router's matrix gets no gradient from the layer's output: the combine weights have to "
        "depend on the scores (with one expert and normalised weights they are 1), or is_learned "
        "is False",
    )


def _largest_move(
    router: Router, inputs: Inputs, key: jax.Array | None, kept_BS: jax.Array, seed: int
) -> float:
    """Returns the largest change of the outputs of kept tokens, relative to the largest output."""
    before = np.asarray(run_layer(router, "oracle", inputs, key))
    after = np.asarray(run_layer(router, "oracle", changed(inputs, kept_BS, seed), key))
    kept = np.asarray(kept_BS)
    return float(np.abs(after - before)[kept].max() / max(np.abs(before).max(), 1e-3))


def _check_causality(router: Router, inputs: Inputs, key: jax.Array | None) -> None:
    if not router.is_causal:
        return
    batch, length = inputs.mask_BS.shape
    for last in range(length - 1):
        kept_BS = jnp.broadcast_to(jnp.arange(length) <= last, (batch, length))
        move = _largest_move(router, inputs, key, kept_BS, 100 + last)
        _require(
            move <= _ROUNDING,
            router,
            f"is_causal is True, but outputs up to position {last} move by {move:.0%} if later "
            f"positions change{'' if key is None else ' (while training)'}",
        )


def _check_causal_form(router: Router, inputs: Inputs) -> None:
    try:
        causal = router.causal()
    except NotImplementedError as error:
        raise RouterContractError(str(error)) from None
    _require(causal.is_causal, router, f"causal() returns {causal}, which is not causal")
    batch, length = inputs.mask_BS.shape
    run = compiled(
        lambda causal, inputs: layer(
            causal, "oracle", inputs, None, router.init_state(inputs.kernel_DE.shape[1])
        )
    )
    try:
        before = np.asarray(run(causal, inputs))
    except KeyError as error:
        raise RouterContractError(
            f"{type(router).__name__}: causal() returns a router that reads the state {error}, "
            "which init_state of this one has not"
        ) from None
    for row, last in ((0, length // 2), (batch - 1, 1)):
        kept_BS = (jnp.arange(batch)[:, None] == row) & (jnp.arange(length) <= last)
        after = np.asarray(run(causal, changed(inputs, kept_BS, 200 + row)))
        kept = np.asarray(kept_BS)
        move = np.abs(after - before)[kept].max() / max(np.abs(before).max(), 1e-3)
        _require(
            move <= _ROUNDING,
            router,
            f"causal() returns {type(causal).__name__}, whose outputs move by {move:.0%} if other "
            "rows or later positions change",
        )


def _check_state(router: Router, inputs: Inputs) -> None:
    num_experts = inputs.kernel_DE.shape[1]
    state = router.init_state(num_experts)
    routed = run_router(router, inputs, jax.random.key(0))
    states, statistics = jax.tree.map(lambda a: jnp.stack([a, a]), (state, routed.statistics))
    new = router.update_state(states, statistics, jnp.int32(0))

    def shapes(tree: Any) -> dict[str, Any]:
        return {name: (np.shape(a), jnp.asarray(a).dtype) for name, a in sorted(tree.items())}

    _require(
        shapes(new) == shapes(states),
        router,
        f"update_state turns {shapes(states)} into {shapes(new)}: names, shapes (the layers in "
        "front) and types have to stay",
    )


def _check_compilation(router: Router, inputs: Inputs, seed: int) -> None:
    run = compiled(lambda router, inputs: layer(router, "grouped", inputs, None))
    for number in range(3):
        batch = changed(inputs, jnp.zeros_like(inputs.mask_BS), seed + 1 + number)
        run(_copy(router), batch)
    count = run._cache_size()
    _require(count == 1, router, f"three batches of one shape compile {count} programs")


def _check_mesh(router: Router, inputs: Inputs) -> None:
    """Compares routing on four shards, with sums over the shards, with that of the whole batch."""
    if router.pool.kind != "sequence":
        rows_of_shard = inputs.mask_BS.shape[0] // NUM_SHARDS
        router = _copy(router, pool=Pool(router.pool.kind, rows=rows_of_shard))
    num_experts = inputs.kernel_DE.shape[1]
    state, key = router.init_state(num_experts), jax.random.key(7)
    logits_BSE = logits(router, inputs, key)
    whole = compiled(
        lambda router, inputs: router(scores_of_batch(router, logits_BSE, inputs, key), state)
    )(router, inputs)
    real = jnp.maximum(inputs.mask_BS.sum(dtype=jnp.float32), 1.0)

    def on_shard(logits_BSE: jax.Array, inputs: Inputs) -> tuple[Any, Any]:
        pools, _ = router.pool.shape(*inputs.mask_BS.shape)
        first = jax.lax.axis_index("shard") * pools
        routed = router(scores_of_batch(router, logits_BSE, inputs, key, first, ("shard",)), state)
        weight = inputs.mask_BS.sum(dtype=jnp.float32) / real
        means = jax.tree.map(lambda v: v * weight, (routed.losses, routed.metrics))
        return routed.assignment, jax.lax.psum((*means, routed.statistics), "shard")

    def rows(a: jax.Array) -> jax.Array:
        return a.reshape(NUM_SHARDS, -1, *a.shape[1:])

    sharded = dataclasses.replace(
        inputs, **{n: rows(getattr(inputs, n)) for n in ("x_BSD", "tokens_BS", "mask_BS")}
    )
    axes: Any = dataclasses.replace(inputs, x_BSD=0, tokens_BS=0, mask_BS=0)  # type: ignore[arg-type]
    axes = dataclasses.replace(axes, kernel_DE=None, wi_EDF=None, wo_EDF=None)
    assignment, sums = over_shards(on_shard, (rows(logits_BSE), sharded), (0, axes))
    merged = jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), assignment)
    wrong = different(merged, whole.assignment)
    _require(not wrong, router, f"the assignment differs on a mesh in {wrong}")
    for kind, actual, expected in zip(
        ("loss", "metric", "statistics"),
        sums,
        (whole.losses, whole.metrics, whole.statistics),
        strict=True,
    ):
        wrong = different(actual, expected)
        _require(
            not wrong,
            router,
            f"{kind} {wrong} on four shards differs from that of the whole batch: sums over tokens "
            "of the batch go through RouterScores.total, random draws through pool_keys",
        )
