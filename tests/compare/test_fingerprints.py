import pytest

from moe_jax.compare.fingerprints import data_identity, decides, fingerprint, resolved_settings

CONFIG = """
# Macros:
STEPS = 40
WARM = %STEPS
WORDS = 'a %STEPS'

Train.steps = %STEPS
Schedule.warmup = %WARM
Data.task = {'x %STEPS': %STEPS, "y": %WORDS}
Model.long = \\
    (%STEPS,
     2)
Data.vocabulary = %UNKNOWN
"""


def test_macros_are_replaced_outside_of_texts():
    assert resolved_settings(CONFIG) == {
        "Train.steps": "40",
        "Schedule.warmup": "40",
        "Data.task": "{'x %STEPS': 40, \"y\": 'a %STEPS'}",
        "Model.long": "(40, 2)",
        "Data.vocabulary": "%UNKNOWN",
    }


def test_macros_that_grow_without_end_are_given_up():
    lines = ["A = [%A, %A]", "B = %B", "Train.steps = %A", "Data.seed = %B"]
    settings = resolved_settings("\n".join(lines))
    assert len(settings["Train.steps"]) < 1_000_000
    assert settings["Data.seed"] == "%B"


@pytest.mark.parametrize(
    "name",
    [
        "Checkpoints.every",
        "Writers.tensorboard",
        "Watchdog.timeout",
        "Sampling.seed",
        "Train.log_every",
        "Train.profile_at",
        "Train.check_memory",
        "Data.cache_dir",
        "Data.rows_dir",
        "Data.tfds_data_dir",
        "Data.allow_changed_files",
        "Mesh.fsdp",
        "Experiment.writers",
    ],
)
def test_settings_that_decide_nothing_do_not_change_the_fingerprint(name):
    before = fingerprint({"Train.steps": "4"})
    assert fingerprint({"Train.steps": "4", name: "1"}) == before
    assert not decides(name)


@pytest.mark.parametrize("name", ["Train.seed", "Data.seed", "Train.eval_every", "Guard.limit"])
def test_other_settings_change_it(name):
    found = [fingerprint({"Train.steps": "4"} | more) for more in ({}, {name: "1"}, {name: "2"})]
    assert len(set(found)) == 3
    assert all(len(text) == 16 for text in found)


def test_order_does_not_matter_and_data_do():
    one, two = {"A.a": "1", "B.b": "2"}, {"B.b": "2", "A.a": "1"}
    assert fingerprint(one) == fingerprint(two)
    assert fingerprint(one, {"text": "abc"}) != fingerprint(one)
    # Names and values are not run together.
    assert fingerprint({"A.a": "1B"}) != fingerprint({"A.a1": "B"})


def test_data_are_identified_by_their_contents():
    settings = {"Data.task": "'text:/a/*.txt'", "Data.vocabulary": "'v.model'", "Data.seed": "1"}
    assert data_identity(settings, {}) == {
        "Data.task": "'text:/a/*.txt'",
        "Data.vocabulary": "'v.model'",
    }
    known = {"digests": {"text:/a/*.txt": "abc"}, "vocabulary_digest": "v"}
    assert data_identity(settings, known) == {
        "Data.task": "'files abc'",
        "Data.vocabulary": "file v",
    }
    # Of a mixture the shares count.
    mixture = {"Data.task": "'text:/a=0.9,text:/a/b=0.1'"}
    found = data_identity(mixture, {"digests": {"text:/a": "x", "text:/a/b": "y"}})
    assert found == {"Data.task": "'files x=0.9,files y=0.1'"}
    # A task by another name that reads files.
    named = data_identity({"Data.task": "'mine'"}, {"digests": {"text:/a": "x"}})
    assert named == {"Data.task": "'mine' files x"}
