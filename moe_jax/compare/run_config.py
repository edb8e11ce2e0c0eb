"""The model and the router of a run, built from its `config.gin` without its data.

The configuration of a run directory is not trusted: imports and network paths need the same
permissions as in the other commands (`gin_imports`, `gin_network_paths`).
"""

import dataclasses
from collections.abc import Mapping

from etils import epath

import moe_jax.routers  # noqa: F401  Registers the routers.
from moe_jax import config
from moe_jax.config_source import ConfigSource
from moe_jax.errors import UserError
from moe_jax.experiments import Experiment
from moe_jax.flops import count_parameters, train_flops_per_token

# The model does not depend on where the data are, which may be on a network or on no disk here.
_NEUTRAL = {
    "Data.task": "'embedded'",
    "Data.vocabulary": "'embedded'",
    "Data.cache_dir": "None",
    "Data.rows_dir": "None",
    "Data.tfds_data_dir": "None",
    # Counting the tokens would read the data.
    "Hash.frequencies": "(1,)",
    # Nothing is logged.
    "Writers.wandb_project": "None",
}


@dataclasses.dataclass(frozen=True)
class RunModel:
    """The size and the router of a run's model.

    Attributes:
        slots_per_token: expert slots computed per token and layer; 0 for a dense model.
        flops_per_token: FLOPs of a training step per token, with these slots.
        parameters: number of all parameters.
        active_parameters: number of parameters that a token uses on average.
        router: name of the router; `dense` without one.
        pool: kind of its pool; empty without a router.
        is_causal: `Router.is_causal`; True without a router.
    """

    slots_per_token: float
    flops_per_token: float
    parameters: int
    active_parameters: int
    router: str
    pool: str
    is_causal: bool


def load_experiment(path: epath.Path, settings: Mapping[str, str]) -> Experiment:
    """Builds the experiment of a run, with other data.

    Args:
        path: `config.gin` of the run.
        settings: its settings by name.

    Raises:
        UserError: for mistakes in the configuration, and what it is not permitted to do; in one
            line.
    """
    neutral = tuple(f"{name}={_NEUTRAL[name]}" for name in _NEUTRAL if name in settings)
    try:
        with config.collect():
            config.parse(ConfigSource(bindings=neutral).over_run(str(path)))
            experiment = config.build("Experiment")
    except UserError as error:
        first, *others = str(error).splitlines()
        more = f" (and {len(others)} more)" if others else ""
        raise UserError(f"{path}: {first}{more}") from None
    assert isinstance(experiment, Experiment)
    return experiment


def describe_model(experiment: Experiment, measured_experts: float | None) -> RunModel:
    """Describes the model of an experiment.

    Args:
        experiment: the experiment.
        measured_experts: mean number of experts per token in training, for routers that compute
            as many as they route (`Router.slots_per_token`); None if it was not measured.
    """
    model, router = experiment.model, experiment.active_router
    length = experiment.data.sequence_length
    if router is None:
        count, flops = count_parameters(model, 0.0), train_flops_per_token(model, 0.0, length)
        return RunModel(0.0, flops, count.total, count.active, "dense", "", True)
    experts, slots = router.experts_per_token, router.slots_per_token
    if slots is not None:
        slots = min(slots, model.num_experts)
    else:
        experts = slots = experts if measured_experts is None else measured_experts
    count = count_parameters(model, experts, router.is_learned)
    return RunModel(
        slots_per_token=router.passes * slots,
        flops_per_token=router.passes * train_flops_per_token(model, slots, length),
        parameters=count.total,
        active_parameters=count.active,
        router=router.name,
        pool=router.pool.kind,
        is_causal=router.is_causal,
    )
