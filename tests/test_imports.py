"""What may not be imported before it is needed."""

import subprocess
import sys

import pytest

HEAVY = "{'tensorflow', 'seqio', 'jax', 'flax', 'orbax'}"


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
        "import sys; from moe_jax import experiment; import moe_jax.evaluation.generate; "
        "import moe_jax.commands.train, moe_jax.commands.generate, moe_jax.commands.status; "
        "experiment.load(['runs/quickstart.gin'], []).language_model(); "
        "sys.exit(str({'tensorflow', 'seqio'} & set(sys.modules) or ''))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stderr.strip() in ("", "set()"), result.stderr
