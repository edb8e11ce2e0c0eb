import dataclasses
import re

import pytest
from fake_runs import evaluation_record, write_run

from moe_jax.compare.compatibility import find_compatible
from moe_jax.compare.run_reader import read_run
from moe_jax.errors import UserError


@pytest.fixture
def others(tmp_path):
    """Three runs that belong together."""
    return [read_run(write_run(tmp_path / f"good_{s}", seed=s), "good") for s in range(3)]


@pytest.fixture
def odd(tmp_path):
    def read(losses=None, arm="odd", seed=0, **options):
        return read_run(write_run(tmp_path / "odd", losses, seed=seed, **options), arm)

    return read


def line(records, **options):
    """Returns the only line, and whether the odd run is kept."""
    found = find_compatible(records, **options)
    (text,) = found.left_out
    assert "\n" not in text
    assert [r.name for r in found.records[:3]] == ["good_0", "good_1", "good_2"]
    return text, len(found.records) == 4


def test_runs_that_belong_together_are_kept(others, odd):
    run = odd(router="switch")
    assert find_compatible([*others, run]).records == [*others, run]
    assert find_compatible([*others, run]).left_out == []


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"Data.task": "'c4'"}, "other data: Data.task = 'c4', where good_0, .* have 'embedded'"),
        ({"Data.vocabulary": "'v.model'"}, "other data: Data.vocabulary = 'v.model'"),
        ({"Data.sequence_length": "64"}, "other data: Data.sequence_length = 64, .* have 32"),
        ({"Data.objective": "'prefix_lm'"}, "other data: Data.objective = 'prefix_lm'"),
        ({"Data.eval_split": "'test'"}, "other held-out set: Data.eval_split = 'test'"),
    ],
)
def test_other_data_are_refused(others, odd, changes, found):
    text, is_kept = line([*others, odd(changes=changes)])
    assert text.startswith("odd: refused: ")
    assert re.search(found, text), text
    assert not is_kept


def test_another_number_of_held_out_tokens_is_refused(others, odd):
    run = odd(records=[evaluation_record(40, 4.0, 4.0, tokens=1024)])
    text, is_kept = line([*others, run])
    assert text.startswith(
        "odd: refused: other held-out set: held-out tokens = 1,024, where good_0"
    )
    assert text.endswith("have 512; evaluate all runs on the same tokens (Data.eval_batches)")
    assert not is_kept


def test_files_are_compared_by_their_contents(others, odd):
    def with_files(record, task, digest):
        data = {**record.data, "digests": {task: digest}}
        return dataclasses.replace(
            record, data=data, settings={**record.settings, "Data.task": f"'{task}'"}
        )

    same = [with_files(record, f"text:/{i}/*.txt", "abc") for i, record in enumerate(others)]
    assert find_compatible(same).left_out == []
    text, is_kept = line([*same, with_files(odd(), "text:/0/*.txt", "xyz")])
    assert "Data.task = 'files xyz', where good_0, good_1, good_2 have 'files abc'" in text
    assert not is_kept


def test_unfinished_runs_are_refused(others, odd):
    text, is_kept = line([*others, odd({10: 5.0, 20: 4.0})])
    assert text == (
        "odd: refused: unfinished: its last evaluation is at step 20 of 40; train it to its end"
    )
    assert not is_kept


def test_a_run_without_evaluation_is_unfinished(others, odd):
    text, _ = line([*others, odd({})])
    assert text == "odd: refused: unfinished: it has no evaluation of 40; train it to its end"


def test_a_run_that_diverged_before_its_first_evaluation_is_kept(others, odd):
    run = dataclasses.replace(odd({}), outcome="diverged")
    assert find_compatible([*others, run]).records[-1] == run


def test_a_repeated_run_is_refused(others, odd):
    text, is_kept = line([*others, odd(arm="good", seed=1)])
    assert text.startswith(
        "odd: refused: it repeats good_1, a run of the same arm with Data.seed = 1"
    )
    assert not is_kept


def test_trials_and_aa_runs_repeat_no_run(others, odd):
    run = odd(arm="good")
    runs = [dataclasses.replace(run, role=role) for role in ("aa", "rate_trial")]
    runs.append(dataclasses.replace(runs[1], learning_rate=1.0))
    assert find_compatible([*others, *runs]).left_out == []


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        (
            {"Data.batch_size": "16"},
            "marked: odd: tokens per step = 512, usual is 256: its steps have another cost",
        ),
        (
            {"Train.steps": "30"},
            "marked: odd: Train.steps = 30, usual is 40: its learning rate had another schedule",
        ),
        (
            {"Data.shards": "2"},
            "marked: odd: Data.shards = 2, usual is not set: its data come in another order",
        ),
        (
            {"Model.d_model": "16", "Model.num_layers": "4"},
            "marked: odd: Model.num_layers = 4, usual is 2, Model.d_model = 16, usual is 8: its "
            "model has another size",
        ),
    ],
)
def test_what_can_still_be_compared_is_marked(others, odd, changes, found):
    steps = int(changes.get("Train.steps", 40))
    assert line([*others, odd(steps=steps, changes=changes)]) == (found, True)


def test_an_arm_of_a_study_may_have_another_size(others, odd):
    run = odd(changes={"Model.d_model": "16"})
    assert find_compatible([*others, run], is_planned=True).left_out == []


def test_without_a_majority_the_groups_are_listed(others, odd):
    run = odd(changes={"Data.sequence_length": "64"})
    with pytest.raises(UserError) as error:
        find_compatible([others[0], run])
    assert str(error.value) == (
        "the runs do not belong together: none of their 2 kinds of data is that of more than half "
        "of them (good_0: Data.sequence_length = 32; odd: Data.sequence_length = 64); give the "
        "runs of one kind"
    )


def test_no_runs():
    assert find_compatible([]).records == []


def test_a_run_without_digests_is_that_of_another_version_or_other_data(others, odd):
    """A digest of the vocabulary is newer than the records of some runs."""
    new = {"digests": {"embedded": "abc"}, "vocabulary_digest": "v"}
    runs = [dataclasses.replace(record, data=new) for record in others[:2]]
    assert find_compatible([*runs, others[2]]).left_out == []
    other = odd(changes={"Data.task": "'c4'"})
    (text,) = find_compatible([*runs, others[2], other]).left_out
    assert text.startswith("odd: refused: other data: Data.task = 'c4', where good_0, good_1")


def test_a_vocabulary_is_compared_by_its_contents(others, odd):
    def with_vocabulary(record, path, digest):
        return dataclasses.replace(
            record,
            data={**record.data, "vocabulary_digest": digest},
            settings={**record.settings, "Data.vocabulary": f"'{path}'"},
        )

    same = [with_vocabulary(record, f"/{i}/v.model", "abc") for i, record in enumerate(others)]
    assert find_compatible(same).left_out == []
    text, is_kept = line([*same, with_vocabulary(odd(), "/0/v.model", "xyz")])
    assert "other data: Data.vocabulary = file xyz, where good_0, good_1, good_2 have" in text
    assert not is_kept


@pytest.fixture
def trial(tmp_path):
    def read(rate, arm="good", **options):
        record = read_run(write_run(tmp_path / f"{arm}_{rate}", **options), arm, "rate_trial")
        return dataclasses.replace(record, learning_rate=rate)

    return read


def test_trials_have_no_vote_and_no_marks(others, trial):
    """They outnumber the runs here, and are shorter and evaluated on less."""
    shorter = {"steps": 20, "changes": {"Data.sequence_length": "16"}}
    trials = [trial(rate, **shorter) for rate in (0.1, 0.2, 0.3, 0.4, 0.5)]
    found = find_compatible([*trials, *others])
    assert found.records == [*trials, *others]
    assert found.left_out == []


def test_trials_are_checked_among_themselves(others, trial):
    other = {"changes": {"Data.sequence_length": "64"}}
    trials = [trial(0.1), trial(0.2), trial(0.3, **other)]
    odd_ones = [trial(0.1, arm="x"), trial(0.2, arm="x", **other)]
    found = find_compatible([*others, *trials, *odd_ones])
    assert found.records == [*others, *trials[:2]]
    assert [text.partition(":")[0] for text in found.left_out] == ["good_0.3", "x"]
    assert "other data: Data.sequence_length = 64" in found.left_out[0]
    assert found.left_out[1].startswith("x: refused: its trials of learning rates: the runs do not")
