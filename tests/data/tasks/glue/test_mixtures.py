"""The mixtures are T5's."""

import json
from pathlib import Path

from moe_jax.data.tasks.glue import DEFINITIONS, EXPERT_CHOICE_TASKS, MIXTURES

GOLDEN = json.loads((Path(__file__).parent / "golden.json").read_text(encoding="utf-8"))


def test_mixtures_are_t5s():
    assert GOLDEN["mixtures"] == {name: MIXTURES[name] for name in ("glue", "super_glue")}
    assert MIXTURES["super_glue"]["super_glue_record_v102"] == 138_854
    assert "glue_wnli_v002" not in MIXTURES["glue"]
    assert DEFINITIONS["glue_wnli_v002"].num_train_examples == 635


def test_the_eleven_tasks():
    assert len(set(EXPERT_CHOICE_TASKS)) == 11
    assert set(EXPERT_CHOICE_TASKS) <= set(DEFINITIONS)
    assert all(DEFINITIONS[task].num_train_examples > 0 for task in EXPERT_CHOICE_TASKS)


def test_wsc_is_trained_and_evaluated_in_two_formats():
    assert MIXTURES["super_glue_wsc"] == {
        "super_glue_wsc_v102_simple_train": 259,
        "super_glue_wsc_v102_simple_eval": 0,
    }
