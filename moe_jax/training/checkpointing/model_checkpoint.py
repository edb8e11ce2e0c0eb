"""Save a checkpoint of the arrays of a model alone, without the state of its training.

Whatever evaluates or generates reads it like any other; training cannot resume from it.
"""

import orbax.checkpoint as ocp
from etils import epath

from moe_jax.errors import UserError
from moe_jax.models.functional import Variables
from moe_jax.training.checkpointing.checkpoint_items import (
    FORMAT_VERSION,
    describe_non_finite,
    flatten_names,
    variables_tree,
)
from moe_jax.training.checkpointing.checksums import inspect_arrays, shapes


def save_model(directory: epath.Path, step: int, variables: Variables) -> None:
    """Writes the parameters and the router state as the checkpoint of a step, and waits for it.

    All processes must call it.

    Args:
        directory: the directory of the checkpoints, which is created.
        step: the step of the checkpoint.
        variables: the arrays.

    Raises:
        UserError: if an array has values that are not finite, or the disk cannot be written.
    """
    tree = variables_tree(variables)
    arrays = flatten_names(tree)
    digests, bad = inspect_arrays(arrays)
    if bad:
        raise UserError(
            f"the checkpoint of step {step} is not written, for "
            f"{describe_non_finite({'variables': bad})}"
        )
    meta = {
        "format_version": FORMAT_VERSION,
        "step": step,
        "shapes": {"variables": shapes(arrays)},
        "digests": {"variables": digests},
    }
    items = ocp.args.Composite(variables=ocp.args.StandardSave(tree), meta=ocp.args.JsonSave(meta))
    options = ocp.CheckpointManagerOptions(enable_async_checkpointing=False)
    try:
        with ocp.CheckpointManager(directory, options=options) as manager:
            manager.save(step, args=items)
    except OSError as error:
        raise UserError(
            f"cannot write a checkpoint to {directory}: {error.strerror or error}"
        ) from None
