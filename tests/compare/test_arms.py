"""The arms of a study."""

import fake_study
import pytest

from moe_jax.compare.arms import load_arms, matching_notes
from moe_jax.compare.study import load_study
from moe_jax.config_source import ConfigSource
from moe_jax.errors import UserError


def arms(tmp_path, *bindings):
    source = ConfigSource([fake_study.write_study(tmp_path)], list(bindings))
    return load_arms(load_study(source))


def test_an_arm_is_the_common_items_then_its_own_then_the_command_lines(tmp_path):
    found = arms(tmp_path, "STEPS=30")
    assert found["ec"].source.files == ("runs/quickstart.gin", "routers/expert_choice.gin")
    assert found["ec"].source.bindings[0] == "STEPS=40"
    assert found["ec"].source.bindings[-1] == "STEPS=30"
    assert {name: arm.experiment.train.steps for name, arm in found.items()} == {
        "ec": 30,
        "gshard": 30,
    }
    assert found["gshard"].experiment.router.name == "gshard_top2"
    assert found["gshard"].settings["Train.steps"] == "30"


def test_all_mistakes_of_all_arms_at_once(tmp_path):
    arms_ = "{'ec': ['ExpertChoice.capacity=2'], 'gshard': ['routers/gshard.gin']}"
    with pytest.raises(UserError) as raised:
        arms(tmp_path, f"Study.arms={arms_}", "Train.step=3")
    lines = str(raised.value).splitlines()
    # A mistake of all arms is named once, without an arm.
    (shared,) = (line for line in lines if "Train" in line)
    assert not shared.startswith("arm ")
    assert any(line.startswith("arm ec: ") and "capacity" in line for line in lines)
    assert any(line.startswith("arm gshard: ") and "gshard.gin" in line for line in lines)


def test_a_rate_that_nothing_uses_is_refused(tmp_path):
    message = r"Study.rate_setting = 'Sgd.rate' is not .*WarmupCosine.peak"
    with pytest.raises(UserError, match=message):
        arms(tmp_path, "Study.learning_rates=(0.1,)", "Study.rate_setting=Sgd.rate")


def test_notes_on_arms_that_are_not_matched(tmp_path):
    equal = list(arms(tmp_path).values())
    assert matching_notes(equal, "slots") == []
    other = "{'ec': ['routers/expert_choice.gin', 'ExpertChoice.capacity_factor=1.0'], 'gshard': "
    unequal = list(arms(tmp_path, f"Study.arms={other}['routers/gshard_top2.gin']}}").values())
    (note,) = matching_notes(unequal, "slots")
    assert "expert slots per token differ: ec 1, gshard 2" in note
    assert len(matching_notes(unequal, "flops")) == 1
    # One choice of a token, but two slots computed for it.
    switch = "{'switch': ['routers/switch.gin', 'Switch.capacity_factor=2.0'], 'gshard': "
    other = f"{switch}['routers/gshard_top2.gin']}}"
    same = arms(tmp_path, f"Study.arms={other}").values()
    assert matching_notes(list(same), "flops") == []
    assert matching_notes(unequal, "steps") == []


def with_file(text, *own, common="'Data.batch_size=8', "):
    items = ", ".join(repr(item) for item in ["own.gin", *own])
    return [
        f"Study.common=['runs/quickstart.gin', {common}'STEPS=40', 'Data.sequence_length=32']",
        f"Study.arms={{'ec': ['routers/expert_choice.gin', {items}], "
        "'gshard': ['routers/gshard_top2.gin']}",
    ], text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("STEPS = 30\n", "STEPS is set by a binding of Study.common, .* over own.gin, line 1"),
        ("include 'runs/quickstart.gin'\nData.batch_size = 4\n", "arm ec: Data.batch_size is set"),
    ],
)
def test_a_file_of_an_arm_does_not_lose_to_a_common_binding(tmp_path, text, message):
    bindings, text = with_file(text)
    (tmp_path / "own.gin").write_text(text)
    if "include" in text:
        bindings[0] = bindings[0].replace("'STEPS=40', ", "")
    with pytest.raises(UserError, match=message) as error:
        arms(tmp_path, *bindings)
    assert "\n" not in str(error.value)


def test_what_an_arm_or_the_command_line_binds_is_not_in_doubt(tmp_path):
    bindings, text = with_file("STEPS = 30\nData.batch_size = 4\n", "STEPS=20")
    (tmp_path / "own.gin").write_text(text)
    found = arms(tmp_path, *bindings, "Data.batch_size=16")
    assert found["ec"].experiment.train.steps == 20
    assert found["ec"].experiment.data.batch_size == 16


def test_weights_of_losses_are_set_one_by_one(tmp_path):
    own = "Loss.weights = {'balance': 0.1}\n"
    (tmp_path / "own.gin").write_text(own)
    other, _ = with_file(own, common="\"Loss.weights={'z': 0.1}\", 'Data.batch_size=8', ")
    assert arms(tmp_path, *other)["ec"].settings["Loss.weights['balance']"] == "0.1"
    same, _ = with_file(own, common="\"Loss.weights={'balance': 0.2}\", ")
    with pytest.raises(UserError, match=r"Loss.weights\['balance'\] is set by a binding"):
        arms(tmp_path, *same)
