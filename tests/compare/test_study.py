"""Studies in gin files."""

import re

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
    assert (plan.command, plan.source) == ("moe-jax compare", f"# study.gin\n{text}")


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
        ("Study.seeds=(4294967290,)", r"4294967290 is too large: the A/A runs have Train.seed \+"),
        ("Study.learning_rates=(1e-3, 1.0000001e-3)", r"Study.learning_rates: two of .* six"),
        ("Study.arm_rates={'ec': (0.1, 0.10000001)}", r"Study.arm_rates\['ec'\]: two of"),
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


def test_without_aa_runs_the_largest_seed_can_be_used(tmp_path):
    loaded = load(tmp_path, "Study.seeds=(4294967290,)", "Study.aa=False")
    assert loaded.study.seeds == (4294967290,)


def test_the_source_has_all_files_but_the_packages(tmp_path):
    texts = {
        "shared.gin": "include 'runs/quickstart.gin'\ninclude 'deep/more.gin'\nSTEPS = 40\n",
        "deep/more.gin": "Data.batch_size = 8\n",
        "arm.gin": "include 'routers/expert_choice.gin'\n",
        "seeds.gin": "Study.seeds = (7,)\n",
    }
    (tmp_path / "deep").mkdir()
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    text = """include 'seeds.gin'
Study.question = '?'
Study.common = ['shared.gin']
Study.arms = {'ec': ['arm.gin'], 'switch': ['routers/switch.gin'], 'again': ['arm.gin']}
Study.baseline = 'ec'
"""
    source = ConfigSource([fake_study.write_study(tmp_path, text)], (), [str(tmp_path)])
    found = load_study(source).text
    names = ["study.gin", "seeds.gin", "shared.gin", "deep/more.gin", "arm.gin"]
    assert found == "\n".join(f"# {n}\n{texts.get(n, text)}" for n in names)


def test_the_source_of_a_study_of_the_package_has_the_files_that_it_includes():
    found = load_study(ConfigSource(["runs/compare_hash_100m.gin"])).text
    assert [line for line in found.splitlines() if re.fullmatch(r"# runs/\S+\.gin", line)] == [
        "# runs/compare_hash_100m.gin",
        "# runs/compare_hash.gin",
    ]
