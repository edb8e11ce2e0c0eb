"""One training step on a mesh of virtual devices, and what it has to equal."""

import dataclasses
import functools

import jax
import numpy as np
import optax
import tiny

from moe_jax.data.batch import Batch
from moe_jax.models.functional import LanguageModel
from moe_jax.routing.router import Router
from moe_jax.sharding.mesh import MeshConfig
from moe_jax.sharding.partition import SINGLE_DEVICE, make_partition
from moe_jax.training.optimizers import Optimizer
from moe_jax.training.state import TrainState, make_state, state_shardings
from moe_jax.training.step import LossConfig, StepOptions, make_train_step

ROWS, LENGTH = 16, 12
SEED = 3
# Every term counts, so that an error in any of them shows in the gradients.
LOSS = LossConfig(
    z_loss=1e-2,
    weights={"router_z": 0.1, "balance": 0.3, "importance": 0.2, "load": 0.2},
    chunk=40,
)


@dataclasses.dataclass(frozen=True)
class Setting:
    """How the step is computed; none of it may change what it computes, but `accumulation` and
    `dropout`, which is both that of the residual stream and that of the experts."""

    accumulation: int = 1
    remat: str = "none"
    scan_layers: bool = True
    num_layers: int = 1
    dispatch: str = "grouped"
    dropout: float = 0.0
    attention: str = "plain"


def label(value: object) -> str:
    """Names a router or a setting in the output of the tests."""
    if isinstance(value, Setting):
        changed = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
        changed = {n: v for n, v in changed.items() if v != getattr(Setting(), n)}
        return ", ".join(f"{name} {v}" for name, v in changed.items())
    return str(getattr(value, "name", ""))


@dataclasses.dataclass(frozen=True)
class Result:
    """What a step leaves behind, on the host."""

    metrics: dict[str, np.ndarray]
    gradients: dict[str, np.ndarray]
    router_state: dict[str, np.ndarray]
    hlo: str


def batch() -> Batch:
    """Returns rows of one or two documents, some with padding at the end."""
    random = np.random.default_rng(1)
    targets = tiny.tokens(ROWS, LENGTH, seed=2)
    real = np.arange(LENGTH) < random.integers(LENGTH // 2, LENGTH + 1, (ROWS, 1))
    start = random.integers(1, LENGTH // 2, (ROWS, 1))
    second = np.arange(LENGTH) >= start
    inputs = np.concatenate([np.zeros_like(targets[:, :1]), targets[:, :-1]], axis=1)
    inputs = np.where(np.arange(LENGTH) == start, 0, inputs) * real
    return Batch(
        inputs.astype(np.int32),
        (targets * real).astype(np.int32),
        real.astype(np.float32),
        (np.arange(LENGTH) - second * start).astype(np.int32) * real,
        ((1 + second) * real).astype(np.int32),
    )


def keep_gradients() -> Optimizer:
    """Returns an optimiser that changes nothing and keeps the gradients as its state."""
    transform = optax.GradientTransformation(
        lambda params: jax.tree.map(jax.numpy.zeros_like, params),
        lambda gradients, state, params: (jax.tree.map(jax.numpy.zeros_like, params), gradients),
    )
    return Optimizer(transform, lambda step: 0.0)


def run(router: Router | None, setting: Setting, mesh: MeshConfig | None) -> Result:
    """Does one step; on one device without a mesh."""
    partition = SINGLE_DEVICE
    if mesh is not None:
        sizes = [getattr(mesh, n) for n in ("slice", "data", "fsdp", "expert", "tensor")]
        partition = make_partition(mesh, jax.devices()[: int(np.prod(sizes))])
    config = tiny.config(
        num_layers=setting.num_layers,
        moe_every=min(setting.num_layers, 2),
        remat=setting.remat,
        scan_layers=setting.scan_layers,
        dispatch=setting.dispatch,
        attention=setting.attention,
        dropout=setting.dropout,
        expert_dropout=setting.dropout,
        num_experts=0 if router is None else 4,
    )
    model = LanguageModel(config, router, partition)
    state = initial_state(model)
    rows = partition.place_rows(batch())
    step = make_train_step(model, keep_gradients(), LOSS, StepOptions(setting.accumulation, SEED))
    # Compiles in half the time; a step runs in a blink either way.
    compiled = step.lower(state, rows).compile({"xla_backend_optimization_level": 0})
    state, metrics = compiled(state, rows)
    return Result(
        *jax.device_get((metrics, state.optimizer_state, state.variables.router_state)),
        hlo=compiled.as_text(),
    )


_MADE: dict[tuple, TrainState] = {}


def initial_state(model: LanguageModel) -> TrainState:
    """Returns the state before the first step, made once on one device for all meshes."""
    config, shardings = model.config, state_shardings(model, keep_gradients())
    which = (config.num_layers, config.num_experts, model.router and type(model.router))
    which = (*which, *(model.abstract().router_state))
    if which not in _MADE:
        alone = LanguageModel(config, model.router)
        _MADE[which] = jax.device_get(make_state(alone, keep_gradients(), SEED))
    state = _MADE[which]
    # The step takes over its state: a copy.
    return jax.device_put(state, shardings) if shardings else jax.tree.map(jax.numpy.array, state)


@functools.cache
def reference(
    router: Router | None, accumulation: int, num_layers: int, dropout: float = 0.0
) -> Result:
    """Returns the step on one device, in the plainest form."""
    setting = Setting(accumulation=accumulation, num_layers=num_layers, dropout=dropout)
    return run(router, setting, None)


def check(router: Router | None, mesh: MeshConfig | None, setting: Setting = Setting()) -> None:
    """Compares a step with the one on one device: metrics, gradients, router state."""
    expected = reference(router, setting.accumulation, setting.num_layers, setting.dropout)
    actual = run(router, setting, mesh)
    assert actual.metrics.keys() == expected.metrics.keys()
    for name, value in expected.metrics.items():
        np.testing.assert_allclose(actual.metrics[name], value, 2e-5, 2e-6, err_msg=name)
    for name, value in expected.gradients.items():
        # float32 sums in another order.
        scale = max(np.abs(value).max(), 1e-6)
        difference = np.abs(actual.gradients[name] - value).max()
        assert difference <= 5e-5 * scale, f"{name}: {difference:.2e} of {scale:.2e}"
    for name, value in expected.router_state.items():
        np.testing.assert_allclose(actual.router_state[name], value, 2e-5, 2e-6, err_msg=name)
