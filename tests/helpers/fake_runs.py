"""Run directories with known losses, written without training."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

SETTINGS = {
    "AdamW.learning_rate": "@WarmupCosine()",
    "Checkpoints.every": "40",
    "Data.batch_size": "8",
    "Data.eval_batches": "2",
    "Data.eval_split": "'validation'",
    "Data.seed": "0",
    "Data.sequence_length": "32",
    "Data.task": "%TASK",
    "Data.vocabulary": "'embedded'",
    "Experiment.checkpoints": "@Checkpoints()",
    "Experiment.data": "@Data()",
    "Experiment.guard": "@Guard()",
    "Experiment.model": "@Model()",
    "Experiment.optimizer": "@AdamW()",
    "Experiment.router": "@ExpertChoice()",
    "Experiment.train": "@Train()",
    "ExpertChoice.capacity_factor": "2.0",
    "ExpertChoice.pool": "@Pool()",
    "Guard.limit": "3",
    "Model.d_ff": "16",
    "Model.d_model": "8",
    "Model.head_dim": "4",
    "Model.num_experts": "4",
    "Model.num_heads": "2",
    "Model.num_layers": "2",
    "Model.vocab_size": "64",
    "Pool.kind": "'batch'",
    "Train.eval_every": "10",
    "Train.log_every": "10",
    "Train.seed": "0",
    "Train.steps": "%STEPS",
    "WarmupCosine.peak": "0.002",
    "WarmupCosine.total_steps": "%STEPS",
}
TOKENS_PER_STEP = 8 * 32
EVAL_TOKENS = 2 * TOKENS_PER_STEP
# The settings of other routers.
ROUTERS = {
    "expert_choice": {},
    "switch": {"Experiment.router": "@Switch()", "Switch.capacity_factor": "1.25"},
    "gshard": {"Experiment.router": "@GShardTop2()", "GShardTop2.capacity_factor": "1.0"},
    "topk": {"Experiment.router": "@TokenChoice()", "TokenChoice.k": "2"},
    "dense": {"Experiment.router": "None", "Model.num_experts": "0"},
}


def config(
    steps: int, router: str = "expert_choice", seed: int = 0, changes: Mapping[str, str] = {}
) -> str:
    """Returns the text of a `config.gin`; both seeds are `seed` unless changed."""
    seeds = {"Train.seed": str(seed), "Data.seed": str(seed)}
    settings = SETTINGS | ROUTERS[router] | seeds | dict(changes)
    if router != "expert_choice":
        settings = {n: v for n, v in settings.items() if not n.startswith(("ExpertChoice", "Pool"))}
    lines = [f"{name} = {value}" for name, value in sorted(settings.items())]
    return "\n".join(["# Macros:", f"STEPS = {steps}", "TASK = 'embedded'", "", *lines, ""])


def training_record(step: int, **changes: object) -> dict[str, object]:
    """Returns a training record of two layers at 1,000 tokens per second."""
    layers = {
        "router/dropped_share": [0.1, 0.3],
        "router/max_violation": [0.25, 0.75],
        "router/mean_experts": [1.5, 2.0],
        "router/unrouted_share": [0.0, 0.5],
    }
    rates = {"tokens": TOKENS_PER_STEP, "tokens_per_second": 1000.0, "skipped_in_row": 0}
    return {
        "step": step,
        "kind": "train",
        "loss": 4.0,
        **rates,
        "skipped_total": 0,
        **layers,
    } | changes


def evaluation_record(step: int, loss: float | None, causal: float | None, **changes: object):
    """Returns an evaluation record."""
    return {
        "step": step,
        "kind": "eval",
        "loss": loss,
        "causal_loss": causal,
        "mean_experts": 2.0,
        "causal_mean_experts": 1.75,
        "tokens": EVAL_TOKENS,
    } | changes


def write_run(
    directory: Path,
    losses: Mapping[int, float] | None = None,
    *,
    steps: int = 40,
    records: Sequence[Mapping[str, object]] | None = None,
    data: Mapping[str, object] = {},
    **of_config,
) -> Path:
    """Writes a run directory.

    Args:
        directory: the directory to create.
        losses: both held-out losses by step; by default of a finished run.
        steps: `Train.steps`.
        records: the lines of `metrics.jsonl` instead of those that `losses` makes.
        data: the manifest of the user's files.
        of_config: arguments of `config`.
    """
    directory.mkdir(parents=True)
    if records is None:
        losses = {s: 5.0 - 0.01 * s for s in range(10, steps + 1, 10)} if losses is None else losses
        records = [
            record
            for step, loss in losses.items()
            for record in (training_record(step), evaluation_record(step, loss, loss))
        ]
    (directory / "config.gin").write_text(config(steps, **of_config))
    facts = {
        "started": ["2026-01-01T00:00:00+00:00"],
        "moe_jax": "0.1.0",
        "commit": "0" * 40,
        "devices": {"kind": "cpu", "count": 1, "processes": 1},
        "data": dict(data),
        "tokens_per_step": TOKENS_PER_STEP,
    }
    (directory / "run.json").write_text(json.dumps(facts))
    (directory / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    attempt = {
        "attempt": "a",
        "time": 100.0,
        "step": steps,
        "seconds": {"step": 60.0, "start": 5.0},
    }
    (directory / "time.jsonl").write_text(json.dumps(attempt) + "\n")
    return directory
