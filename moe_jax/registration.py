"""Registration of classes and functions for gin files with `@configurable`.

    @configurable
    @dataclasses.dataclass(frozen=True)
    class MyRouter(Router):          # Experiment.router = @MyRouter(), MyRouter.k = 2
        k: PositiveInt = 1

    @configurable
    def my_schedule(peak: Positive, total_steps: PositiveInt) -> optax.Schedule:
        ...                          # AdamW.learning_rate = @my_schedule()

The routers, optimizers and schedules of the package are registered in the same way as those of a
user's module, which a gin file imports (`import my_router`, with `--allow_imports=my_router`).
"""

import inspect
from collections.abc import Callable
from typing import Any, TypeVar, overload

from moe_jax import config
from moe_jax.settings import Settings, checked

T = TypeVar("T", bound=Callable[..., Any])


@overload
def configurable(target: T, /) -> T: ...


@overload
def configurable(target: str, /) -> Callable[[T], T]: ...


def configurable(target: Any, /) -> Any:
    """Registers a class or function for gin files, under its name, and returns it.

    Arguments from gin files and from Python code are checked against their annotations
    (`moe_jax.settings`).

    Args:
        target: a subclass of `Settings` (for instance, a `Router`), decorated with
            `dataclasses.dataclass`; or a function; or the name under which to register a function.

    Raises:
        TypeError: for a class that is not derived from `Settings`.
        ValueError: for a name that another module has registered.
    """
    if isinstance(target, str):
        return lambda function: _register_function(function, target)
    if not inspect.isclass(target):
        return _register_function(target, target.__name__)
    if not issubclass(target, Settings):
        raise TypeError(
            f"{target.__qualname__} must be derived from moe_jax.settings.Settings (as a router is "
            "from moe_jax.routing.Router) to be configurable"
        )
    config.register(target.settings_name, target)
    return target


def _register_function(function: T, name: str) -> T:
    checking: Any = checked(name)(function)
    config.register(name, checking)
    return checking
