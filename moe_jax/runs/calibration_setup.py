"""What a calibration starts from: the run, its causal method, and the router of the result."""

import dataclasses
import math
from typing import Any, Literal, get_args

import jax
import numpy as np
from etils import epath

from moe_jax.config_source import ConfigSource
from moe_jax.errors import UserError, nearest
from moe_jax.models.functional import LanguageModel, Variables
from moe_jax.routers.expert_choice import ExpertChoice
from moe_jax.routers.expert_threshold import ExpertThreshold
from moe_jax.routers.predicted_expert_choice import PredictedExpertChoice
from moe_jax.routing.router import Router
from moe_jax.runs.loading import Run, TrainedModel, load_run

Method = Literal["thresholds", "predictor"]
METHODS: tuple[Method, ...] = get_args(Method)


@dataclasses.dataclass(frozen=True)
class CalibrationSetup:
    """A run to calibrate.

    Attributes:
        trained: the run as it was trained, but for the capacity factor.
        result: the run that the calibration makes, with the router that reads its results.
        method: how causal routing decides.
        capacity_factor: c, of both.
    """

    trained: Run
    result: Run
    method: Method
    capacity_factor: float


def load_for_calibration(
    checkpoint: str,
    source: ConfigSource,
    method: str = "thresholds",
    capacity_factor: float | None = None,
) -> CalibrationSetup:
    """Loads the experiment of a run with a capacity factor, by default its own.

    All processes of a run must call it.

    Raises:
        UserError: as `load_run`; for an unknown method, or a router that it cannot calibrate; for a
            capacity factor that is not above 0 and at most the number of experts.
    """
    chosen = _method(method)
    run = load_run(checkpoint, source)
    router, experts = run.experiment.active_router, run.experiment.model.num_experts
    target = _target(run.directory, router, chosen)
    own: Any = router
    if capacity_factor is None:
        capacity_factor = float(own.capacity_factor)
    elif not (math.isfinite(capacity_factor) and 0 < capacity_factor <= experts):
        raise UserError(
            f"--capacity_factor={capacity_factor:g} is not above 0 and at most {experts}, the "
            "number of experts (Model.num_experts): it is the mean number of experts per token"
        )
    else:
        run = _load(checkpoint, source, type(own), {"capacity_factor": capacity_factor})
    result = run
    if target is not type(own):
        shared = {"capacity_factor": capacity_factor, "threshold_decay": own.threshold_decay}
        bindings = (*source.bindings, f"Experiment.router=@{target.settings_name}()")
        result = _load(checkpoint, dataclasses.replace(source, bindings=bindings), target, shared)
    return CalibrationSetup(run, result, chosen, capacity_factor)


def _method(name: str) -> Method:
    for method in METHODS:
        if method == name:
            return method
    raise UserError(
        f"--method={name} is unknown; known: {', '.join(METHODS)}." + nearest(name, METHODS)
    )


def _load(
    checkpoint: str, source: ConfigSource, router: type[Router], settings: dict[str, float]
) -> Run:
    """Loads a run with settings of its router."""
    name = router.settings_name
    bindings = [f"{name}.{field}={value!r}" for field, value in settings.items()]
    source = dataclasses.replace(source, bindings=(*source.bindings, *bindings))
    return load_run(checkpoint, source)


def _target(directory: epath.Path, router: Router | None, method: Method) -> type[Router]:
    """Returns the router of the result.

    Raises:
        UserError: for a dense model, and for a router that the method cannot calibrate.
    """
    if router is None:
        raise UserError(f"{directory} is a dense model: it has no router to calibrate")
    if method == "predictor" and type(router) in (ExpertChoice, PredictedExpertChoice):
        return PredictedExpertChoice
    if method == "thresholds" and isinstance(router, PredictedExpertChoice):
        return ExpertChoice
    if isinstance(router.causal(), ExpertThreshold):
        if method == "thresholds":
            return type(router)
        raise UserError(
            f"--method=predictor predicts the choices of expert_choice, and {directory} has the "
            f"router {router.name}; give --method=thresholds"
        )
    how = "already" if router.causal() is router else "without its capacity"
    raise UserError(
        f"{directory} has the router {router.name}, which routes causally {how} and has no "
        "thresholds: there is nothing to calibrate (expert choice has some)"
    )


def adopt(trained: TrainedModel, run: Run) -> TrainedModel:
    """Returns a trained model with the router of another configuration of the same run.

    State that the other router does not read is left out; state that only it reads is initial.
    """
    if run is trained.run:
        return trained
    partition = trained.model.partition
    model = run.experiment.language_model(partition)
    return TrainedModel(run, model, trained.step, _adopted(model, trained.variables))


def _adopted(model: LanguageModel, variables: Variables) -> Variables:
    assert model.router is not None
    initial = model.router.init_state(model.config.num_experts)
    state = {}
    for path, shape in model.abstract().router_state.items():
        if path in variables.router_state:
            state[path] = variables.router_state[path]
            continue
        value = np.broadcast_to(np.asarray(initial[path.rsplit("/", 1)[-1]]), shape.shape)
        sharding = getattr(shape, "sharding", None)
        state[path] = jax.numpy.asarray(value) if sharding is None else _placed(value, sharding)
    return dataclasses.replace(variables, router_state=state)


def _placed(value: np.ndarray, sharding: jax.sharding.Sharding) -> jax.Array:
    return jax.make_array_from_callback(value.shape, sharding, lambda index: value[index])
