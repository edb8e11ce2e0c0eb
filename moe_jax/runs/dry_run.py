"""Validation of an experiment without data, devices or large arrays."""

import math
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh

from moe_jax.data.tasks import catalog
from moe_jax.data.tasks.vocabulary_size import vocabulary_size
from moe_jax.errors import UserError
from moe_jax.experiments import Experiment
from moe_jax.library_output import suppress_library_output
from moe_jax.routing.router import loss_names
from moe_jax.sharding.partition import Partition
from moe_jax.sharding.rules import AXES, BATCH_AXES
from moe_jax.training.metric_writers.config import check_installed
from moe_jax.training.state import abstract_state


def mistakes(experiment: Experiment) -> list[str]:
    """Returns the errors that training would raise before its first step, one per line."""
    return list(_mistakes(experiment))


def _mistakes(experiment: Experiment) -> Iterator[str]:
    checks: tuple[Callable[[Experiment], None], ...] = (
        _check_rows,
        _check_widths,
        _check_arrays,
        _check_losses,
        _check_vocabulary,
        _check_tasks,
        lambda experiment: check_installed(experiment.writers),
    )
    for check in checks:
        try:
            check(experiment)
        except UserError as error:
            yield from str(error).splitlines()


def _sizes(experiment: Experiment) -> dict[str, int]:
    """Returns the number of devices along each axis; 1 for an axis of unspecified size."""
    return {axis: max(getattr(experiment.mesh, axis), 1) for axis in AXES}


def _check_rows(experiment: Experiment) -> None:
    sizes = _sizes(experiment)
    rows = experiment.data.batch_size // experiment.train.accumulation
    parts = math.prod(sizes[axis] for axis in BATCH_AXES)
    if rows % parts:
        given = " x ".join(f"Mesh.{axis} = {sizes[axis]}" for axis in BATCH_AXES if sizes[axis] > 1)
        raise UserError(
            f"{rows} rows (Data.batch_size / Train.accumulation) do not divide over {given} devices"
        )


def _check_widths(experiment: Experiment) -> None:
    tensor = _sizes(experiment)["tensor"]
    wrong = [
        f"Model.{name} = {getattr(experiment.model, name)}"
        for name in ("num_heads", "d_model")
        if getattr(experiment.model, name) % tensor
    ]
    if wrong:
        raise UserError(f"Mesh.tensor = {tensor} does not divide {' and '.join(wrong)}")


def _check_arrays(experiment: Experiment) -> None:
    """Evaluates the shapes of the model, the optimiser state and the schedule."""
    model = experiment.language_model()
    shapes = model.abstract().params
    mesh = AbstractMesh(tuple(_sizes(experiment).values()), AXES)
    partition = Partition(mesh, experiment.mesh.resolved_rules())  # type: ignore[arg-type]
    for name, axes in model.logical_axes().items():
        partition.check(name, axes, shapes[name].shape)
    abstract_state(model, experiment.optimizer)
    jax.eval_shape(experiment.optimizer.learning_rate, jax.ShapeDtypeStruct((), jnp.int32))


def _check_losses(experiment: Experiment) -> None:
    """Checks the weights of the router's losses, whose names are found by tracing."""
    router, data = experiment.active_router, experiment.data
    if router is not None:
        rows = data.batch_size // experiment.train.accumulation
        sizes = (rows, data.sequence_length, experiment.model.num_experts)
        experiment.loss.check(router, loss_names(router, *sizes))


def _check_vocabulary(experiment: Experiment) -> None:
    size = vocabulary_size(experiment.data.vocabulary)
    if size is not None:
        experiment.check_vocabulary(size)


def _check_tasks(experiment: Experiment) -> None:
    with suppress_library_output():  # TensorFlow logs when it is imported.
        wrong = [catalog.unknown_task(name) for name in experiment.data.rates]
    if any(wrong):
        raise UserError("\n".join(line for line in wrong if line))
