"""What `train` would refuse before its first step, found without data, devices or memory."""

import math
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh

from moe_jax.commands.quiet import quiet
from moe_jax.data.tasks import catalog
from moe_jax.data.tasks.vocabulary_size import vocabulary_size
from moe_jax.errors import UserError
from moe_jax.experiment import Experiment
from moe_jax.sharding.mesh import AXES, BATCH_AXES
from moe_jax.sharding.partition import Partition
from moe_jax.training.metric_writers.config import check_installed
from moe_jax.training.state import abstract_state


def mistakes(described: Experiment) -> list[str]:
    """Returns what is wrong with an experiment, one line each."""
    return list(_mistakes(described))


def _mistakes(described: Experiment) -> Iterator[str]:
    checks: tuple[Callable[[Experiment], None], ...] = (
        _check_rows,
        _check_widths,
        _check_arrays,
        _check_vocabulary,
        _check_tasks,
        lambda described: check_installed(described.writers),
    )
    for check in checks:
        try:
            check(described)
        except UserError as error:
            yield from str(error).splitlines()


def _sizes(described: Experiment) -> dict[str, int]:
    """Returns the devices along each axis; 1 for the axis that takes the rest of them."""
    return {axis: max(getattr(described.mesh, axis), 1) for axis in AXES}


def _check_rows(described: Experiment) -> None:
    sizes = _sizes(described)
    rows = described.data.batch_size // described.train.accumulation
    parts = math.prod(sizes[axis] for axis in BATCH_AXES)
    if rows % parts:
        given = " x ".join(f"Mesh.{axis} = {sizes[axis]}" for axis in BATCH_AXES if sizes[axis] > 1)
        raise UserError(
            f"{rows} rows (Data.batch_size / Train.accumulation) do not divide over {given} devices"
        )


def _check_widths(described: Experiment) -> None:
    tensor = _sizes(described)["tensor"]
    wrong = [
        f"Model.{name} = {getattr(described.model, name)}"
        for name in ("num_heads", "d_model")
        if getattr(described.model, name) % tensor
    ]
    if wrong:
        raise UserError(f"Mesh.tensor = {tensor} does not divide {' and '.join(wrong)}")


def _check_arrays(described: Experiment) -> None:
    """Makes the model, the optimiser's state and the schedule, as shapes only."""
    model = described.language_model()
    shapes = model.abstract().params
    mesh = AbstractMesh(tuple(_sizes(described).values()), AXES)
    partition = Partition(mesh, described.mesh.resolved_rules())  # type: ignore[arg-type]
    for name, axes in model.logical_axes().items():
        partition.check(name, axes, shapes[name].shape)
    abstract_state(model, described.optimizer)
    jax.eval_shape(described.optimizer.learning_rate, jax.ShapeDtypeStruct((), jnp.int32))


def _check_vocabulary(described: Experiment) -> None:
    size = vocabulary_size(described.data.vocabulary)
    if size is not None:
        described.check_vocabulary(size)


def _check_tasks(described: Experiment) -> None:
    with quiet(False):  # TensorFlow speaks when it is imported.
        wrong = [catalog.unknown_task(name) for name in described.data.rates]
    if any(wrong):
        raise UserError("\n".join(line for line in wrong if line))
