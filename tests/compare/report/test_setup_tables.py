"""What was trained, and where the arms differ."""

import dataclasses

from sample_comparison import run, sample_comparison

from moe_jax.compare.report.setup_tables import differences_table, setup_table

COMMON = {
    "Experiment.optimizer": "@AdamW()",
    "AdamW.b1": "0.9",
    "AdamW.learning_rate": "@WarmupCosine()",
    "WarmupCosine.final_fraction": "1.0",
    "WarmupCosine.total_steps": "1000",
    "Model.d_ff": "256",
    "Data.task": "'books'",
}
OWN = {
    "switch": {"Experiment.router": "@Switch()", "Switch.k": "1", "Switch.scale": "1.0"},
    "ec_sequence": {"Experiment.router": "@Topk()", "Topk.k": "2", "Topk.scale": "1.0"},
    "ec_threshold": {"Experiment.router": "@Topk()", "Topk.k": "2", "Topk.scale": "1.0"},
    "dense": {"Model.d_ff": "512"},
}


def comparison(all_runs=()):
    found = sample_comparison(seeds=(11, 12))
    arms = {
        name: dataclasses.replace(
            arm,
            runs={
                seed: dataclasses.replace(record, settings={**COMMON, **OWN[name], **peak(name)})
                for seed, record in arm.runs.items()
            },
        )
        for name, arm in found.arms.items()
    }
    return dataclasses.replace(found, arms=arms, all_runs=all_runs)


def peak(name):
    return {"WarmupCosine.peak": "0.002" if name == "dense" else "0.004"}


def values(table):
    return {cells[0].text: cells[-1] for cells in table.rows}


def test_settings_of_all_runs():
    found = values(setup_table(comparison()))
    assert found["task"].text == "books"
    assert found["feed-forward width (d_ff)"].text == "256; 512"
    assert found["feed-forward width (d_ff)"].note == "differs between runs"
    assert found["optimiser"].text == "AdamW (b1 = 0.9)"
    assert found["learning rate"].text == (
        "WarmupCosine (final_fraction = 1.0, peak = 0.004 / 0.002)"
    )
    assert found["held-out tokens"].text == "65,536"
    assert found["evaluations of a run"].text == "20"
    assert "layers" not in found


def test_an_arm_has_the_settings_that_others_do_not_share():
    found = values(differences_table(comparison()))
    assert found["switch"].text == "Model.d_ff = 256; k = 1; WarmupCosine.peak = 0.004"
    assert found["ec_sequence"].text == "Model.d_ff = 256; k = 2; WarmupCosine.peak = 0.004"
    assert found["dense"].text == "Model.d_ff = 512; WarmupCosine.peak = 0.002"
    assert differences_table(sample_comparison()) is None


def test_tokens_and_time_of_all_runs_with_trials():
    trials = [
        dataclasses.replace(run("dense", seed, "rate_trial"), planned_steps=300, wall_seconds=60.0)
        for seed in (1, 2)
    ]
    found = values(setup_table(comparison((run("dense", 11), *trials))))
    assert found["learning-rate trials"].text == "2 runs of 300 steps"
    assert found["all runs"].text == "3"
    # 1000 steps of 4096 tokens.
    assert found["training tokens of all runs"].text == "12.3M"
    assert found["wall time of all runs, added"].text == "7 min 21 s"
    # Without them: 4 arms and A/A on 2 seeds.
    assert values(setup_table(comparison()))["all runs"].text == "10"
