"""Compatibility of saved iterator states with the current data."""

import pytest

from moe_jax.data.pipeline import iterator_checkpoint
from moe_jax.errors import UserError

NOW = {"task": "text:FILES", "files": "abc", "batch_size": 8}


def test_the_same_data_are_gone_on_with():
    assert iterator_checkpoint.can_restore("data", NOW, NOW, False)
    assert iterator_checkpoint.can_restore("data", {**NOW, "more": 1}, NOW, True)


def test_changed_files_are_refused_unless_they_are_meant():
    saved = {**NOW, "files": "abd"}
    with pytest.raises(UserError, match=r"not the files .*allow_changed_files = True") as error:
        iterator_checkpoint.can_restore("data", saved, NOW, False)
    assert "\n" not in str(error.value)
    assert iterator_checkpoint.can_restore("data", saved, NOW, True) is False
    # Of a curriculum the rows change with the files.
    saved["rows"] = 100
    assert iterator_checkpoint.can_restore("curriculum", saved, {**NOW, "rows": 99}, True) is False


def test_a_position_of_before_names_the_other_split():
    """It has no word about files, and their places in its task."""
    saved = {"task": "text:/home/books", "batch_size": 8}
    with pytest.raises(UserError, match="a version that held out other texts"):
        iterator_checkpoint.can_restore("data", saved, NOW, False)
    assert iterator_checkpoint.can_restore("data", saved, NOW, True) is False
    # Other data are as before.
    now = {"task": "embedded", "files": None, "batch_size": 8}
    assert iterator_checkpoint.can_restore(
        "data", {"task": "embedded", "batch_size": 8}, now, False
    )


@pytest.mark.parametrize("meant", [False, True])
def test_another_batch_or_task_is_refused_with_what_changed(meant):
    for changes in (
        {"batch_size": 4},
        {"files": "abd", "batch_size": 4},
        {"task": "c4"},
        {"rows": 3},
    ):
        with pytest.raises(UserError, match=r"does not fit this configuration \(.*->.*\)"):
            iterator_checkpoint.can_restore(
                "data", {**NOW, "rows": 2, **changes}, {**NOW, "rows": 2}, meant
            )
