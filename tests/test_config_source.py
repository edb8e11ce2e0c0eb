"""Files, bindings and search paths as one value."""

from moe_jax.config_source import ConfigSource


def test_sequences_become_tuples():
    source = ConfigSource(["a.gin"], ["STEPS=1"], ["here"])
    assert source == ConfigSource(("a.gin",), ("STEPS=1",), ("here",))
    assert len({source, ConfigSource(["a.gin"], ["STEPS=1"], ["here"])}) == 1


def test_the_configuration_of_a_run_is_the_first_file():
    source = ConfigSource(["a.gin"], ["STEPS=1"]).over_run("run/config.gin")
    assert source.files == ("run/config.gin", "a.gin")
    assert source.run_config == "run/config.gin"
    assert source.bindings == ("STEPS=1",)
