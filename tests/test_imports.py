"""What may not be imported before it is needed."""

import subprocess
import sys

import pytest

HEAVY = "{'tensorflow', 'seqio', 'jax', 'flax', 'orbax', 'numpy', 'gin', 'rich'}"


@pytest.mark.parametrize(
    "statement",
    ["import moe_jax", "from moe_jax import cli; cli.make_parser().format_help()"],
)
def test_nothing_heavy_is_imported_for_help(statement):
    code = f"import sys; {statement}; sys.exit(str({HEAVY} & set(sys.modules) or ''))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stderr.strip() == "", result.stderr


def test_models_training_and_configurations_need_no_tensorflow():
    code = (
        "import sys; from moe_jax import experiments; import moe_jax.evaluation.generate; "
        "from moe_jax.config_source import ConfigSource; "
        "import moe_jax.runs.training, moe_jax.runs.generation, moe_jax.runs.status; "
        "experiments.load(ConfigSource(['runs/quickstart.gin'])).language_model(); "
        "sys.exit(str({'tensorflow', 'seqio'} & set(sys.modules) or ''))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stderr.strip() in ("", "set()"), result.stderr
