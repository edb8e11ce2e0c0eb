"""`moe-jax config show`: a configuration with everything resolved."""

from typing import Any

from moe_jax import config, experiments
from moe_jax.commands.console import line_printer, make_console
from moe_jax.config_source import ConfigSource
from moe_jax.models.attention_choice import choose_attention


def show(source: ConfigSource) -> dict[str, Any]:
    """Prints the operative configuration with its parameter and FLOP counts.

    Raises:
        UserError: for mistakes in the configuration.
    """
    loaded = experiments.load(source)
    counts = loaded.parameters()
    tokens = loaded.data.batch_size * loaded.data.sequence_length
    flops = loaded.train_flops_per_token()
    length = loaded.data.sequence_length
    attention = {p: str(choose_attention(loaded.model, p, length)) for p in ("tpu", "cpu")}
    say = line_printer(make_console())
    say(config.operative())
    say(
        f"# {counts.total:,} parameters, {counts.active:,} active a token\n"
        f"# {tokens:,} tokens and {flops * tokens:.3g} FLOPs a step "
        f"({flops:.3g} a token; counting rule: moe_jax/flops.py)\n"
        f"# attention on TPU: {attention['tpu']}; elsewhere: {attention['cpu']}"
    )
    return {
        "config": config.operative(),
        "attention": attention,
        "parameters": counts.total,
        "active_parameters": counts.active,
        "tokens_per_step": tokens,
        "train_flops_per_token": flops,
    }
