"""Registry of routers by name, as in the file names under `configs/routers/`."""

import inspect
from collections.abc import Iterator, Mapping

from moe_jax.errors import UserError, nearest
from moe_jax.routing.router import Router
from moe_jax.settings import REGISTERED


class _Registered(Mapping[str, type[Router]]):
    """The registered router classes, including those of user modules."""

    def __getitem__(self, name: str) -> type[Router]:
        return self._classes()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._classes()))

    def __len__(self) -> int:
        return len(self._classes())

    def _classes(self) -> dict[str, type[Router]]:
        found = (target for target in REGISTERED.values() if inspect.isclass(target))
        return {target.name: target for target in found if issubclass(target, Router)}


ROUTERS: Mapping[str, type[Router]] = _Registered()


def get_router(name: str) -> Router:
    """Returns the router with this name and default settings.

    Raises:
        UserError: for an unknown name.
    """
    if name not in ROUTERS:
        raise UserError(
            f"unknown router {name!r}; known: {', '.join(ROUTERS)}." + nearest(name, ROUTERS)
        )
    return ROUTERS[name]()
