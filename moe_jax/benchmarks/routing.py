"""Cost of every router with every dispatch, next to a dense layer of equal active FLOPs."""

import dataclasses
import functools
import statistics

from moe_jax.benchmarks import interleaved, layer
from moe_jax.benchmarks.matmul import make_matmul
from moe_jax.routers import get_router


@dataclasses.dataclass(frozen=True)
class RoutingCost:
    """The cost of a router with a dispatch.

    Attributes:
        router: registered name of the router.
        dispatch: registered name of the dispatch.
        seconds: median wall time of a layer, forward and backward, router included.
        ratio_to_dense: median ratio to a dense layer of the same active FLOPs, run right before.
        flops: counted FLOPs of the experts of both passes.
        memory_to_dense: temporary memory relative to that dense layer.
    """

    router: str
    dispatch: str
    seconds: float
    ratio_to_dense: float
    flops: float
    memory_to_dense: float


@dataclasses.dataclass(frozen=True)
class RoutingCosts:
    """The costs measured in one interleaved run.

    Attributes:
        costs: one for each pair of a router and a dispatch.
        dense_seconds: median time of the dense layer, by active experts.
        matmul_flops_per_second: rate of a large matrix product in the same run.
    """

    costs: list[RoutingCost]
    dense_seconds: dict[float, float]
    matmul_flops_per_second: float


def measure(
    size: layer.Size, routers: list[str], dispatches: list[str], dtype: str, rounds: int
) -> RoutingCosts:
    """Measures all pairs in one interleaved run, after a warm-up."""
    x, dy, tokens = layer.random_inputs(size, dtype)
    experts = layer.expert_parameters(size, dtype)
    made = {name: get_router(name) for name in routers}
    dense = {}
    for active in {router.experts_per_token for router in made.values()}:
        params = layer.dense_parameters(size, active, dtype)
        dense[active] = interleaved.compile_case(layer.step_of(layer.dense), params, x, dy)
    cases, references = {}, {}
    for name, router in made.items():
        router.check(size.rows, tokens.shape[1], size.num_experts)
        for dispatch in dispatches:
            run = functools.partial(layer.routed, router, dispatch, tokens)
            case = f"{name} {dispatch}"
            cases[case] = interleaved.compile_case(layer.step_of(run), experts, x, dy)
            references[case] = dense[router.experts_per_token]
    matmul, matmul_flops = make_matmul(dtype)
    cases["matmul"] = references["matmul"] = interleaved.Case(matmul, 0)
    times = interleaved.measure(cases, references, rounds)
    costs: list[RoutingCost] = []
    dense_seconds: dict[float, list[float]] = {}
    for name, router in made.items():
        active = router.experts_per_token
        for dispatch in dispatches:
            case = f"{name} {dispatch}"
            dense_seconds.setdefault(active, []).extend(times[case].reference)
            costs.append(
                RoutingCost(
                    router=name,
                    dispatch=dispatch,
                    seconds=times[case].seconds,
                    ratio_to_dense=times[case].ratio,
                    flops=active * expert_flops(size),
                    memory_to_dense=cases[case].temporary_bytes / dense[active].temporary_bytes,
                )
            )
    return RoutingCosts(
        costs=costs,
        dense_seconds={k: statistics.median(v) for k, v in dense_seconds.items()},
        matmul_flops_per_second=matmul_flops / times["matmul"].seconds,
    )


def expert_flops(size: layer.Size) -> float:
    """Returns the FLOPs of one expert for every token, forward and backward."""
    return 3 * 2 * 2.0 * size.tokens * size.width * size.hidden
