"""Studies are told from the configurations of runs."""

import pytest

from moe_jax.compare.study_files import check_is_plan, plan_kind
from moe_jax.config_source import ConfigSource
from moe_jax.errors import UserError


def test_files_that_set_the_study(tmp_path):
    own = tmp_path / "own.gin"
    own.write_text("include 'runs/compare.gin'\n")
    assert plan_kind(ConfigSource([str(own)])) == "Study"
    assert plan_kind(ConfigSource(["own.gin"], ["STEPS=3"], [str(tmp_path)])) == "Study"
    assert plan_kind(ConfigSource(["runs/finetune.gin"])) == "Finetuning"
    assert plan_kind(ConfigSource(["runs/quickstart.gin"])) is None


def test_files_that_cannot_be_read_are_none(tmp_path):
    """Whatever reads them then says what is wrong."""
    own = tmp_path / "own.gin"
    own.write_text("Study.question = 'What?'\nStudy.qestion = 'What?'\n")
    assert plan_kind(ConfigSource([str(own)])) is None
    assert plan_kind(ConfigSource(["no_such_file.gin"])) is None


def test_what_is_no_study_is_refused_in_one_line(tmp_path):
    message = "runs/quickstart.gin is no study: it sets no Study.*; see runs/compare_quick.gin"
    with pytest.raises(UserError) as error:
        check_is_plan(ConfigSource(["runs/quickstart.gin"]), "Study")
    assert str(error.value) == message
    check_is_plan(ConfigSource(["runs/compare_quick.gin"]), "Study")
    check_is_plan(ConfigSource(["no_such_file.gin"]), "Study")


def test_a_plan_of_another_kind_names_its_command():
    with pytest.raises(UserError, match="is a fine-tuning study: use `moe-jax finetune`"):
        check_is_plan(ConfigSource(["runs/finetune.gin"]), "Study")
    with pytest.raises(UserError, match="is a study: use `moe-jax compare`"):
        check_is_plan(ConfigSource(["runs/compare_quick.gin"]), "Finetuning")
