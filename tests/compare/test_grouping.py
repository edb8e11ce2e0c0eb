import dataclasses

import pytest
from fake_runs import write_run

from moe_jax.compare.grouping import change_plan, group_into_arms, make_plan
from moe_jax.compare.not_shown import UNIT_WORDS
from moe_jax.compare.run_reader import read_run
from moe_jax.errors import UserError


@pytest.fixture
def read(tmp_path):
    def run(name, **options):
        record = read_run(write_run(tmp_path / name, **options))
        return dataclasses.replace(record, name=name)

    return run


def arms(records):
    return [record.arm for record in group_into_arms(records)[0]]


def test_runs_that_differ_in_seeds_only_are_an_arm(read):
    records = [
        read(f"{router}_s{seed}", router=router, seed=seed)
        for seed in (0, 1)
        for router in ("switch", "expert_choice")
    ]
    grouped, lines = group_into_arms(records)
    assert [r.arm for r in grouped] == ["switch", "expert_choice"] * 2
    assert [r.data_seed for r in grouped] == [0, 0, 1, 1]
    assert lines == []


@pytest.mark.parametrize(
    "name",
    ["Checkpoints.every", "Train.eval_every", "Model.scan_layers", "Loss.chunk", "Mesh.fsdp"],
)
def test_what_decides_no_model_makes_no_arm(read, name):
    value = "True" if name == "Model.scan_layers" else "2"
    assert len(set(arms([read("ec_0"), read("ec_1", seed=1, changes={name: value})]))) == 1


def test_other_settings_make_arms(read):
    wide = read("wide", changes={"Model.d_ff": "32"})
    pool = read("pool", changes={"Pool.kind": "'sequence'"})
    assert len(set(arms([read("ec"), wide, pool]))) == 3


def test_settings_of_another_version_make_no_arm(read):
    new = read("b_1", seed=1, changes={"Train.accumulation": "1"})
    assert arms([read("b_0"), new]) == ["b", "b"]


def test_weights_of_losses_make_arms(read):
    # A weight with its default value is not written down.
    other = read("other", router="switch", changes={"Loss.weights": "{'balance': 0.1}"})
    same = read("same", router="switch", changes={"Loss.weights": "{'balance': 0.01}"}, seed=1)
    found = arms([read("switch", router="switch"), other, same])
    assert found[0] == found[2] != found[1]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["ec_s0", "ec_s1", "switch_s0"], ["ec", "switch"]),
        (["ec/seed_0", "ec/seed_1", "sw/seed_0"], ["ec", "sw"]),
        (["ec_c2-0", "ec_c2-1", "gshard_top2"], ["ec_c2", "gshard_top2"]),
        (["ec10", "ec11", "switch_0"], ["ec1", "switch"]),
        (["ec_long", "ec_lazy", "switch_x"], ["ec", "switch_x"]),
        # Nothing is in common, or the same for both.
        (["a0", "b1", "c0"], ["expert_choice", "switch"]),
        (["run0", "run1", "run2"], ["expert_choice", "switch"]),
        (["2026-01-01", "2026-01-02", "2026-01-03"], ["expert_choice", "switch"]),
    ],
)
def test_names_are_what_directories_have_in_common(read, names, expected):
    records = [
        read(names[0]),
        read(names[1], seed=1),
        read(names[2], router="switch"),
    ]
    assert list(dict.fromkeys(arms(records))) == expected


def test_one_odd_directory_does_not_rename_the_other_arms(read):
    records = [
        read("ec_0"),
        read("odd", seed=1),
        read("mine_0", router="switch"),
        read("gshard_0", router="gshard"),
    ]
    assert arms(records) == ["expert_choice", "expert_choice", "mine", "gshard"]


def test_arms_of_one_router_are_named_by_what_differs(read):
    records = [
        read("run0"),
        read("run1", changes={"ExpertChoice.capacity_factor": "1.0"}),
        read("run2", changes={"Pool.kind": "'sequence'"}),
        read("run3", router="dense"),
    ]
    found = arms(records)
    assert found == [
        "expert_choice capacity_factor=2.0 pool=batch",
        "expert_choice capacity_factor=1.0 pool=batch",
        "expert_choice capacity_factor=2.0 pool=sequence",
        "dense",
    ]
    plan = make_plan(group_into_arms(records)[0])
    assert plan.arms[found[1]].startswith("expert_choice, batch pool: ")
    assert "ExpertChoice.capacity_factor = 1.0" in plan.arms[found[1]]
    assert plan.arms["dense"].startswith("dense: ")


def test_runs_of_one_data_order_are_paired_by_their_other_seed(read):
    records = [
        read(f"{router}_{seed}", router=router, seed=seed, changes={"Data.seed": "7"})
        for router in ("switch", "expert_choice")
        for seed in (0, 1)
    ]
    grouped, (line,) = group_into_arms(records)
    assert [r.data_seed for r in grouped] == [0, 1, 0, 1]
    assert "paired by Train.seed" in line
    assert grouped[0].settings["Data.seed"] == "7"


def test_the_baseline_is_gshard_then_switch_then_the_first(read):
    ec, topk = read("ec"), read("topk", router="topk")
    switch, gshard = read("switch", router="switch"), read("gshard", router="gshard")

    def baseline(*records):
        return make_plan(group_into_arms(records)[0]).baseline

    assert baseline(ec, switch, gshard) == "gshard"
    assert baseline(ec, switch, topk) == "switch"
    assert baseline(topk, ec) == "topk"


def test_a_plan_says_what_is_compared(read):
    records = [read("ec_0"), read("ec_1", seed=1), read("switch_0", router="switch")]
    again = dataclasses.replace(read("switch_5", router="switch"), seed=5)
    grouped, _ = group_into_arms([*records, again])
    grouped[-1] = dataclasses.replace(grouped[-1], role="aa")
    plan = make_plan(grouped, matched_by="flops")
    assert (plan.baseline, plan.seeds, plan.matched_by, plan.aa) == (
        "switch",
        (0, 1),
        "flops",
        True,
    )
    assert list(plan.arms) == ["ec", "switch"]
    chosen = make_plan(grouped, baseline="ec")
    assert (chosen.baseline, chosen.aa, chosen.matched_by) == ("ec", False, "steps")
    assert change_plan(plan) == change_plan(plan, "switch", "flops") == plan
    # The question of the plan is one about its own baseline and cost.
    assert change_plan(plan, "ec") == dataclasses.replace(
        plan,
        baseline="ec",
        question=f"How do the arms compare with ec, in {UNIT_WORDS['flops']}?",
        aa=False,
    )
    by_tokens = change_plan(plan, matched_by="tokens")
    assert by_tokens.question == "How do the arms compare with switch, in training tokens?"
    assert by_tokens.aa


def test_wrong_choices_are_corrected(read):
    grouped, _ = group_into_arms([read("ec_0"), read("switch_0", router="switch")])
    with pytest.raises(UserError, match=r"--baseline=swich is unknown; known: ec, switch\. Did"):
        make_plan(grouped, baseline="swich")
    with pytest.raises(
        UserError, match="--matched_by=step is unknown; known: steps, tokens, slots,"
    ):
        make_plan(grouped, matched_by="step")
    with pytest.raises(UserError, match="needs two arms, and there is only 'ec'"):
        make_plan(grouped[:1])


def test_the_place_of_the_data_makes_no_arm(read):
    changes = {"Data.task": "'text:/b/*.txt'", "Data.vocabulary": "'/b/v.model'"}
    records = [read("x"), read("y", seed=1, changes=changes), read("z", router="switch")]
    found = arms(records)
    assert found == ["expert_choice", "expert_choice", "switch"]
    plan = make_plan(group_into_arms([records[1], records[2]])[0])
    assert not any("Data." in words for words in plan.arms.values())
