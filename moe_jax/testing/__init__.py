"""Conformance checks for tests of routers and dispatches, including those of users."""

from moe_jax.testing.dispatch_contract import DispatchContractError, check_dispatch
from moe_jax.testing.router_contract import RouterContractError, check_router

__all__ = ["DispatchContractError", "RouterContractError", "check_dispatch", "check_router"]
