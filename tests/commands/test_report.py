"""What is printed before training."""

import pytest
from etils import epath

from moe_jax import experiments
from moe_jax.commands.console import make_console
from moe_jax.commands.report import print_header
from moe_jax.config_source import ConfigSource

FILES = ["runs/quickstart.gin"]
TINY = ["Data.batch_size=8", "Data.sequence_length=64", "STEPS=20", "WarmupCosine.warmup_steps=5"]


@pytest.mark.parametrize(
    ("task", "ending"),
    [("embedded", "20 steps = 10,240 tokens"), ("glue_sst2", "10,240 tokens, padding included")],
)
def test_the_header_counts_tokens(capsys, task, ending):
    loaded = experiments.load(ConfigSource(FILES, [*TINY, f"TASK='{task}'"]))
    print_header(make_console(), loaded, epath.Path("somewhere"))
    model, data, run = capsys.readouterr().out.splitlines()
    assert data == f"Data:  {task}, 8 x 64 = 512 tokens a step, {data.partition('a step, ')[2]}"
    assert data.endswith(ending)
    assert f"Model: {loaded.parameters().total / 1e6:.1f}M parameters" in model
    assert run == "Run:   somewhere"


def test_the_header_names_what_has_no_part_in_the_run(capsys):
    unused = ["AdamW.b1=0.8", "Adafactor.update_clipping=2.0"]
    loaded = experiments.load(ConfigSource(FILES, [*TINY, *unused]))
    print_header(make_console(), loaded, epath.Path("somewhere"))
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("Not used")] == [
        "Not used in this configuration: Adafactor.update_clipping "
        "(in --gin.Adafactor.update_clipping=2.0)"
    ]
