"""`@configurable`: registered once under a name, checked, replaced by itself only."""

import dataclasses
import sys

import gin
import pytest

from moe_jax import config, experiments, gin_imports
from moe_jax.config_source import ConfigSource
from moe_jax.errors import UserError
from moe_jax.gin_registry import configurable_names, selector_of
from moe_jax.registration import configurable
from moe_jax.routers import ROUTERS, get_router
from moe_jax.routers.token_choice import TokenChoice
from moe_jax.settings import REGISTERED, PositiveInt, Settings


@pytest.fixture
def own():
    """Forgets what a test registers."""
    before = dict(REGISTERED)
    yield
    gin.clear_config()
    for name in set(REGISTERED) - set(before):
        gin.config._REGISTRY.pop(selector_of(name))
        gin_imports._registered_directly.discard(selector_of(name))
        del REGISTERED[name]


def define(default):
    @configurable
    @dataclasses.dataclass(frozen=True)
    class NotebookRouter(TokenChoice):
        """A router of a cell."""

        k: PositiveInt = default

    return NotebookRouter


def test_a_router_of_the_running_program_is_configurable(own):
    router = define(3)
    source = ConfigSource(("runs/quickstart.gin",), ("Experiment.router=@NotebookRouter()",))
    assert experiments.load(source).router == router()
    # Again, as when the cell runs twice, also after a configuration has locked gin.
    define(5)
    assert experiments.load(source).router.k == 5
    assert "NotebookRouter" in configurable_names()
    with pytest.raises(UserError, match=r"NotebookRouter.k must be a whole number above 0, not 0"):
        experiments.load(
            dataclasses.replace(source, bindings=(*source.bindings, "NotebookRouter.k=0"))
        )
    with pytest.raises(UserError, match=r"Did you mean 'NotebookRouter'\?"):
        experiments.load(
            dataclasses.replace(source, bindings=("Experiment.router=@NotebookRoutr()",))
        )


def test_its_name_is_derived_from_the_class(own):
    @configurable
    @dataclasses.dataclass(frozen=True)
    class TopPRouter(TokenChoice):
        """Has a field for its name, which stays."""

    assert TopPRouter().name == "topk"
    define(2)
    assert "topk" in ROUTERS
    assert get_router("switch").name == "switch"


def test_a_function_is_checked_from_python_too(own):
    @configurable
    def my_rate(peak: PositiveInt):
        return peak

    assert my_rate(peak=2) == 2
    with pytest.raises(UserError, match=r"my_rate.peak must be a whole number above 0, not 0"):
        my_rate(peak=0)
    assert REGISTERED["my_rate"] is my_rate


def test_a_name_of_another_module_is_refused(own):
    with pytest.raises(ValueError, match=r"registers 'Switch', which moe_jax.routers.switch has"):

        @configurable
        @dataclasses.dataclass(frozen=True)
        class Switch(TokenChoice):
            """Another Switch."""

    assert REGISTERED["Switch"].__module__ == "moe_jax.routers.switch"


def test_other_classes_are_refused():
    with pytest.raises(TypeError, match="Plain must be derived from"):

        @configurable
        class Plain:
            """Neither settings nor a function."""


def test_a_module_that_was_permitted_once_is_not_for_every_configuration(tmp_path, monkeypatch):
    """What an import of a gin file has registered, another configuration may not name."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "permitted_once.py").write_text(
        "import dataclasses, moe_jax\n"
        "from moe_jax.routers.token_choice import TokenChoice\n"
        "@moe_jax.configurable\n@dataclasses.dataclass(frozen=True)\n"
        "class PermittedOnce(TokenChoice):\n    '''A router.'''\n"
    )
    (tmp_path / "my.gin").write_text(
        "import permitted_once\ninclude 'runs/quickstart.gin'\n"
        "Experiment.router = @PermittedOnce()\n"
    )
    try:
        with gin_imports.allowing(["permitted_once"]):
            experiments.load(ConfigSource(("my.gin",)))
        with pytest.raises(UserError, match="'PermittedOnce' was refused"):
            experiments.load(
                ConfigSource(("runs/quickstart.gin",), ("Experiment.router=@PermittedOnce()",))
            )
    finally:
        gin.clear_config()
        gin.config._REGISTRY.pop("permitted_once.PermittedOnce")
        REGISTERED.pop("PermittedOnce", None)
        sys.modules.pop("permitted_once", None)


def test_settings_are_nested_by_reference_only_where_nothing_is_set(own):
    @configurable
    @dataclasses.dataclass(frozen=True)
    class Inner(Settings):
        """Nested."""

        size: int = 1

    @configurable
    @dataclasses.dataclass(frozen=True)
    class Outer(Settings):
        """Has a default of its own for the nested settings."""

        inner: Inner = dataclasses.field(default_factory=lambda: Inner(7))

    def build(*bindings):
        config.parse(ConfigSource((), bindings))
        return config.build("Outer").inner.size

    assert build() == 7
    assert build("Inner.size=3") == 3
    assert build("Outer.inner=@Inner()") == 1
    assert build("Outer.inner=@a/Inner()", "a/Inner.size=5") == 5
