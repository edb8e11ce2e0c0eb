"""The names that gin files can configure."""

import gin
import pytest

from moe_jax import experiments, gin_imports  # noqa: F401  (registers the names)
from moe_jax.gin_registry import registered
from moe_jax.routers.token_choice import TokenChoice


@pytest.fixture
def strange():
    """Registers a name that no gin file may use."""
    gin.clear_config()
    gin.register("strange", module="other_library")(lambda: None)
    yield "other_library.strange"
    gin.config._REGISTRY.pop("other_library.strange")


def test_the_packages_own_names_have_a_kind_a_module_and_a_summary(strange):
    found = {item.name: item for item in registered()}
    assert {"Model", "TokenChoice", "AdamW", "WarmupCosine", "Experiment"} <= found.keys()
    router = found["TokenChoice"]
    assert (router.kind, router.module) == ("class", TokenChoice.__module__)
    assert router.summary == TokenChoice.__doc__.splitlines()[0]
    assert found["AdamW"].kind == "function"
    assert all(item.summary for item in found.values())
    assert strange not in found
    assert "gin.macro" not in found
