from fake_runs import write_run

from moe_jax.compare.arm_names import describe_groups, name_groups
from moe_jax.compare.run_reader import read_run


def test_components_are_named(tmp_path):
    other = {"Experiment.optimizer": "@Adafactor()", "Adafactor.learning_rate": "@WarmupCosine()"}
    groups = [
        [read_run(write_run(tmp_path / str(len(changes)) / "run", changes=changes))]
        for changes in ({}, other)
    ]
    expected = ["expert_choice optimizer=AdamW", "expert_choice optimizer=Adafactor"]
    for name, found in zip(expected, name_groups(groups), strict=True):
        assert found.startswith(name)


def test_names_are_distinct(tmp_path):
    # The fourth setting that differs is not in the name.
    several = {"Data.batch_size": "16", "Guard.limit": "7", "Model.d_ff": "32"}
    groups = [
        [read_run(write_run(tmp_path / str(i) / "run", changes=changes))]
        for i, changes in enumerate(({}, several, several | {"Model.d_model": "16"}))
    ]
    assert name_groups(groups)[1:] == [
        "expert_choice batch_size=16 limit=7 d_ff=32",
        "expert_choice batch_size=16 limit=7 d_ff=32 #2",
    ]


def test_descriptions_are_short(tmp_path):
    many = {f"Guard.{name}": "7" for name in ("limit", "window")}
    many |= {f"Model.{name}": "16" for name in ("d_ff", "d_model", "head_dim", "vocab_size")}
    many |= {"WarmupCosine.peak": "0.5", "Data.batch_size": "16"}
    groups = [
        [read_run(write_run(tmp_path / "a", changes={"Guard.window": "9"}))],
        [read_run(write_run(tmp_path / "b", changes=many))],
    ]
    one, other = describe_groups(groups)
    assert one.startswith("expert_choice, batch pool: Data.batch_size = 8, ")
    assert other.endswith(", and 1 more")
