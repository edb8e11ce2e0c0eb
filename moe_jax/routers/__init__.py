"""The routers, one per module. Importing this package registers all of them.

A new router needs a module here, a gin file in `configs/routers/`, and a test.
"""

import importlib
import pkgutil

from moe_jax.routers.registry import ROUTERS, get_router

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = ["ROUTERS", "get_router"]
