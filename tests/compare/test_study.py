"""Studies in gin files."""

import fake_study
import pytest

from moe_jax.compare.study import load_study
from moe_jax.config_source import ConfigSource
from moe_jax.errors import UserError


def load(tmp_path, *bindings, text=fake_study.STUDY):
    return load_study(ConfigSource([fake_study.write_study(tmp_path, text)], list(bindings)))


def test_bindings_of_the_study_apply_to_it_and_others_to_the_arms(tmp_path):
    loaded = load(tmp_path, "Study.seeds=(5, 6)", "Train.accumulation=2", "Study.baseline=ec")
    assert (loaded.study.seeds, loaded.study.baseline) == ((5, 6), "ec")
    assert loaded.bindings == ("Train.accumulation=2",)
    # Gin files beside the study are found.
    assert loaded.search_paths == (str(tmp_path),)


def test_the_plan(tmp_path):
    text = fake_study.STUDY + "Study.descriptions = {'ec': 'experts choose'}\n"
    plan = load(tmp_path, text=text).plan("moe-jax compare")
    assert plan.arms == {"ec": "experts choose", "gshard": "routers/gshard_top2.gin"}
    assert (plan.seeds, plan.aa, plan.rate_seed) == ((1, 2), True, None)
    assert (plan.command, plan.source) == ("moe-jax compare", text)


def test_the_plan_has_the_seed_of_trials_if_there_are_some(tmp_path):
    loaded = load(tmp_path, "Study.learning_rates=(1e-3, 2e-3)", "Study.rate_seed=9")
    assert loaded.plan("").rate_seed == 9


def test_an_arm_can_have_rates_of_its_own(tmp_path):
    rates = ["Study.learning_rates=(0.1,)", "Study.arm_rates={'ec': (1.0, 2.0)}"]
    study = load(tmp_path, *rates).study
    assert (study.rates("ec"), study.rates("gshard")) == ((1.0, 2.0), (0.1,))


@pytest.mark.parametrize(
    ("binding", "message"),
    [
        ("Study.baseline=gshrd", r"Study.baseline names the arm 'gshrd'.*Did you mean 'gshard'\?"),
        ("Study.descriptions={'e': 'x'}", r"Study.descriptions names the arm 'e'"),
        ("Study.arms={'a/b': ()}", r"the name 'a/b' cannot be that of a directory"),
        ("Study.arms={'gshard': (), 'gshard_aa': ()}", r"'gshard_aa' is that of the base"),
        ("Study.common=('routers/switch',)", r"Study.common: 'routers/switch' is neither a gin"),
        ("Study.seeds=(1, 1)", r"Study.seeds has a value twice"),
        ("Study.seeds=()", r"Study.seeds has no seed"),
        ("Study.matched_by=step", r"Study.matched_by = 'step' .* is unknown.*'steps'\?"),
    ],
)
def test_mistakes_are_one_line(tmp_path, binding, message):
    with pytest.raises(UserError, match=message) as raised:
        load(tmp_path, binding)
    assert len([line for line in str(raised.value).splitlines() if message[:9] in line]) <= 1


def test_the_seed_of_trials_is_not_used_in_the_comparison(tmp_path):
    with pytest.raises(UserError, match=r"Study.rate_seed = 1 is in Study.seeds = \(1, 2\)"):
        load(tmp_path, "Study.learning_rates=(1e-3, 2e-3)", "Study.rate_seed=1")


def test_settings_of_the_arms_do_not_belong_into_the_studys_file(tmp_path):
    text = fake_study.STUDY + "Train.accumulation = 2\n"
    with pytest.raises(UserError, match=r"Train.accumulation \(.*line 12\) is not: .*Study.common"):
        load(tmp_path, text=text)
