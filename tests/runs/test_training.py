"""`moe-jax train` of what does not fit: refused before anything is read or allocated."""

import jax
import pytest

from moe_jax import cli, experiments
from moe_jax.config_source import ConfigSource
from moe_jax.runs import preparation, training
from moe_jax.training.memory.memory_estimate import MemoryLimit

FILES = ["runs/quickstart.gin"]
SMALL = MemoryLimit(64 << 20, 1, True, "a small GPU")


@pytest.fixture
def small(monkeypatch):
    """Gives the device 64 MiB: less than the quickstart's parameters, moments and gradients."""
    monkeypatch.setattr(training, "find_limit", lambda devices: SMALL)

    def fail(*args):
        raise AssertionError("something was allocated")

    monkeypatch.setattr(preparation, "make_state", fail)
    monkeypatch.setattr(preparation, "open_data", fail)


def test_what_does_not_fit_is_one_line_with_the_numbers(small, capsys, tmp_path):
    code = cli.main(["train", f"--gin_file={FILES[0]}", f"--output_dir={tmp_path}/run"])
    err = capsys.readouterr().err
    assert (code, err.count("\n")) == (1, 1)
    counted = experiments.load(ConfigSource(FILES)).parameters().total
    gib = 4 * counted / (1 << 30)
    assert (
        f"{gib:.2f} GiB parameters + {2 * gib:.2f} GiB optimiser + {gib:.2f} GiB gradients" in err
    )
    assert "a small GPU has 0.06 GiB" in err
    assert not (tmp_path / "run" / "run.json").exists()


@pytest.mark.parametrize(("setting", "expected"), [("True", SMALL), ("False", None)])
def test_a_setting_turns_the_check_off(setting, expected, monkeypatch):
    monkeypatch.setattr(training, "find_limit", lambda devices: SMALL)
    monkeypatch.setattr(training, "check_state", lambda *arguments: None)
    loaded = experiments.load(ConfigSource(FILES, [f"Train.check_memory={setting}"]))
    assert training.checked_limit(loaded, loaded.language_model()) is expected


@pytest.mark.parametrize(
    "error",
    [MemoryError(), jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory\nallocating 9")],
)
def test_memory_that_is_used_up_later_is_one_line(error, monkeypatch, capsys, tmp_path):
    def fail(*args, **more):
        raise error

    monkeypatch.setattr(training, "train", fail)
    code = cli.main(["train", f"--gin_file={FILES[0]}", f"--output_dir={tmp_path}/run"])
    err = capsys.readouterr().err
    assert (code, err.count("\n")) == (1, 1)
    assert err.startswith("moe-jax: the memory is used up: ")
    assert "Model.remat" in err
    assert "bug" not in err
