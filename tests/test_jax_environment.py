"""JAX's environment variables: which are followed, and what is said of the others."""

import os
import subprocess
import sys

import jax
import pytest

from moe_jax import jax_environment
from moe_jax.errors import UserError


@pytest.fixture
def prepared(monkeypatch):
    """Returns what is said of variables."""

    def prepare(debug=False, **variables):
        for name in jax_environment._NOT_FOLLOWED:
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        lines = []
        jax_environment.prepare(debug, lines.append)
        return lines

    return prepare


@pytest.mark.parametrize("variable", jax_environment._NOT_FOLLOWED)
def test_the_value_without_a_variable_is_that_of_jax(variable):
    """The defaults in the table are those of JAX, so that what is not followed changes nothing."""
    default, _ = jax_environment._NOT_FOLLOWED[variable]
    assert jax.config.values[variable.lower()] == default


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("JAX_NUMPY_RANK_PROMOTION", "raise"),
        ("JAX_NUMPY_DTYPE_PROMOTION", "strict"),
        ("JAX_ENABLE_X64", "1"),
        ("JAX_ENABLE_X64", "banana"),
        ("JAX_DEFAULT_PRNG_IMPL", "rbg"),
        ("JAX_THREEFRY_PARTITIONABLE", "0"),
        ("JAX_DEBUG_NANS", "True"),
        ("JAX_TRANSFER_GUARD", "disallow"),
    ],
)
def test_not_followed_with_a_line(prepared, variable, value):
    (line,) = prepared(**{variable: value})
    assert line.startswith(f"{variable}={value} in the environment is not followed: ")
    assert variable not in os.environ
    assert prepared() == []


def test_what_changes_nothing_is_not_mentioned(prepared):
    assert (
        prepared(JAX_ENABLE_X64="0", JAX_DEBUG_NANS="false", JAX_THREEFRY_PARTITIONABLE="1") == []
    )
    assert prepared(JAX_NUMPY_RANK_PROMOTION="allow", JAX_LOG_COMPILES="1") == []


def test_debugging_is_followed_with_debug(prepared):
    assert prepared(debug=True, JAX_DEBUG_NANS="1") == []
    assert os.environ["JAX_DEBUG_NANS"] == "1"


def test_the_precision_is_followed_and_kept(prepared):
    (line,) = prepared(JAX_DEFAULT_MATMUL_PRECISION="highest")
    assert "is followed" in line
    assert jax_environment.followed() == {"JAX_DEFAULT_MATMUL_PRECISION": "highest"}


def test_a_program_in_such_an_environment():
    """Nothing of it reaches JAX, in a process that imports it later."""
    program = (
        "import sys; from moe_jax.cli import main; assert 'jax' not in sys.modules; "
        "assert main(['status', '/nowhere']) == 1; import jax; import jax.numpy as jnp; "
        "print(jnp.arange(2.0)[None] + jnp.arange(2), jnp.zeros(1).dtype, jnp.zeros(()) / 0)"
    )
    variables = {"JAX_NUMPY_RANK_PROMOTION": "raise", "JAX_ENABLE_X64": "1", "JAX_DEBUG_NANS": "1"}
    result = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert result.stdout.split() == ["[[0.", "2.]]", "float32", "nan"]
    assert result.stderr.count("is not followed") == 3


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (
            ValueError("invalid truth value 'banana' for environment 'JAX_LOG_COMPILES'"),
            "JAX_LOG_COMPILES=banana in the environment is not a value that JAX knows",
        ),
        (
            ValueError('Invalid value "foo" for JAX flag jax_default_matmul_precision'),
            "JAX_DEFAULT_MATMUL_PRECISION=foo in the environment is not a value that JAX knows",
        ),
        (
            RuntimeError("Unable to initialize backend 'foo'"),
            "JAX_PLATFORMS=foo in the environment cannot be used here",
        ),
    ],
)
def test_what_jax_cannot_read_is_one_line(monkeypatch, error, line):
    monkeypatch.setenv("JAX_LOG_COMPILES", "banana")
    monkeypatch.setenv("JAX_DEFAULT_MATMUL_PRECISION", "foo")
    monkeypatch.setenv("JAX_PLATFORMS", "foo")
    assert jax_environment.mistake(error).startswith(line)
    assert jax_environment.mistake(ValueError("something else")) is None


def test_a_working_directory_that_is_gone_is_named(monkeypatch, tmp_path):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(UserError, match="the working directory does not exist any more"):
        jax_environment.prepare(debug=False, say=print)
