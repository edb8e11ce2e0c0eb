"""Checks for the tests of code that extends this package."""

from moe_jax.testing.router_contract import RouterContractError, check_router

__all__ = ["RouterContractError", "check_router"]
