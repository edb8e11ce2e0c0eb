"""moe_jax: pre-train decoder-only mixture-of-experts language models with JAX.

    import moe_jax

    run = moe_jax.load("runs/quickstart")
    print(run.generate("The whale", max_new_tokens=40))

    experiment = moe_jax.experiment(["runs/quickstart.gin"], ["STEPS=20"])
    experiment.train("runs/mine")

Importing the package imports neither JAX nor TensorFlow: names are imported when they are used.
"""

from typing import TYPE_CHECKING, Any

from moe_jax.version import __version__

if TYPE_CHECKING:
    from moe_jax import testing
    from moe_jax.errors import Interrupted, UserError
    from moe_jax.registration import configurable
    from moe_jax.routing.router import Router
    from moe_jax.runs.python_api import ConfiguredExperiment, experiment, load
    from moe_jax.runs.trained_run import TrainedRun

__all__ = [
    "ConfiguredExperiment",
    "Interrupted",
    "Router",
    "TrainedRun",
    "UserError",
    "__version__",
    "configurable",
    "experiment",
    "load",
    "testing",
]


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first used."""
    if name in ("ConfiguredExperiment", "TrainedRun", "experiment", "load"):
        from moe_jax.runs import python_api

        return getattr(python_api, name)
    if name == "configurable":
        from moe_jax.registration import configurable

        return configurable
    if name in ("Interrupted", "UserError"):
        from moe_jax import errors

        return getattr(errors, name)
    if name == "Router":
        from moe_jax.routing.router import Router

        return Router
    if name == "testing":
        import moe_jax.testing

        return moe_jax.testing
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """Returns the public names for completion."""
    return __all__
