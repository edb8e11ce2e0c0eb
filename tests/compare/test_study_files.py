"""Studies are told from the configurations of runs."""

import pytest

from moe_jax.compare.study_files import check_is_study, is_study
from moe_jax.config_source import ConfigSource
from moe_jax.errors import UserError


def test_files_that_set_the_study(tmp_path):
    own = tmp_path / "own.gin"
    own.write_text("include 'runs/compare.gin'\n")
    assert is_study(ConfigSource([str(own)]))
    assert is_study(ConfigSource(["own.gin"], ["STEPS=3"], [str(tmp_path)]))
    assert not is_study(ConfigSource(["runs/quickstart.gin"]))


def test_files_that_cannot_be_read_are_none(tmp_path):
    """Whatever reads them then says what is wrong."""
    own = tmp_path / "own.gin"
    own.write_text("Study.question = 'What?'\nStudy.qestion = 'What?'\n")
    assert not is_study(ConfigSource([str(own)]))
    assert not is_study(ConfigSource(["no_such_file.gin"]))


def test_what_is_no_study_is_refused_in_one_line(tmp_path):
    message = "runs/quickstart.gin is no study: it sets no Study.*; see runs/compare_quick.gin"
    with pytest.raises(UserError) as error:
        check_is_study(ConfigSource(["runs/quickstart.gin"]))
    assert str(error.value) == message
    check_is_study(ConfigSource(["runs/compare_quick.gin"]))
    check_is_study(ConfigSource(["no_such_file.gin"]))
