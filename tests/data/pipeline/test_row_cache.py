"""Cached rows are bitwise the batches of the seqio pipeline."""

import dataclasses
import itertools
import re
import shutil

import cached_rows
import numpy as np
import pytest
import tiny
from tiers import slow

from moe_jax.data.config import DataConfig
from moe_jax.data.pipeline import input_pipeline
from moe_jax.data.pipeline.batch_source import open_source, vocabulary_for
from moe_jax.data.pipeline.example_prompts import example_prompt, has_questions
from moe_jax.data.pipeline.row_cache import steps_of_an_epoch
from moe_jax.errors import UserError

CONFIG = DataConfig(sequence_length=32, batch_size=8, seed=3)


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    return cached_rows.write_text(tmp_path_factory.mktemp("texts") / "numbers.txt")


CASES = [
    {"pack": True},
    slow({"shards": 2, "eval_batches": 2}),
    slow({"objective": "span_corruption", "sequence_length": 64}),
    slow({"objective": "prefix_lm", "pack": True}),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: " ".join(case))
def test_all_batches_are_those_of_the_pipeline(task, tmp_path, case):
    config = dataclasses.replace(CONFIG, task=task, **case)
    cached, facts, lines = cached_rows.write_rows(config, tmp_path / "rows", seeds=(1, 3))
    expected = input_pipeline.TrainBatches(config)
    source = open_source(cached)
    found = source.train_batches()
    for _ in range(6):
        cached_rows.assert_same(next(found), next(expected))
    with pytest.raises(UserError, match="rows for 6 steps of 8, not for 7"):
        next(found)
    source.check_steps(6)
    other = next(open_source(dataclasses.replace(cached, seed=1)).train_batches())
    assert (other.targets_BS != next(source.train_batches()).targets_BS).any()
    expected = input_pipeline.eval_batches(config)
    for batch, wanted in zip(source.eval_batches(), expected, strict=True):
        cached_rows.assert_same(batch, wanted)
    lengths = input_pipeline.token_bytes(config, 8448)
    np.testing.assert_array_equal(source.token_bytes(8448), lengths)
    np.testing.assert_array_equal(source.token_bytes(100), lengths[:100])
    vocabulary = input_pipeline.vocabulary_of(config)
    prompt = example_prompt(config, expected[0], vocabulary)
    assert example_prompt(cached, expected[0], vocabulary_for(cached)) == prompt
    assert has_questions(cached) == facts.is_question == has_questions(config)
    size = sum(path.stat().st_size for path in (tmp_path / "rows").iterdir())
    promised = float(re.search(r"at most ([\d,.]+) MB", lines[0])[1].replace(",", ""))
    # It is rounded, and the headers and `rows.json` are not counted.
    assert abs(size / 1e6 - promised) < 0.06


@pytest.mark.slow
def test_another_batch_size_reads_the_same_rows(task, tmp_path):
    """Which are then enough for fewer or more steps."""
    config = dataclasses.replace(CONFIG, task=task)
    cached, *_ = cached_rows.write_rows(config, tmp_path / "rows")
    other = dataclasses.replace(config, batch_size=12)
    source = open_source(dataclasses.replace(cached, batch_size=12))
    expected = input_pipeline.TrainBatches(other)
    for batch in itertools.islice(source.train_batches(), 4):
        cached_rows.assert_same(batch, next(expected))
    held_out = input_pipeline.eval_batches(other)
    for batch, wanted in zip(source.eval_batches(), held_out, strict=True):
        cached_rows.assert_same(batch, wanted)
    with pytest.raises(UserError, match="rows for 4 steps of 12, not for 5"):
        source.check_steps(5)


@pytest.fixture
def pipeline(monkeypatch):
    """Gives all seeds the same batches, three of them over and over, without a pipeline."""
    batches = [tiny.make_batch(8, 32, seed) for seed in range(3)]
    monkeypatch.setattr(input_pipeline, "TrainBatches", lambda config: itertools.cycle(batches))
    monkeypatch.setattr(input_pipeline, "eval_batches", lambda config: batches[:1])
    return batches


def test_repeated_rows_are_stored_once(task, tmp_path, pipeline):
    config = dataclasses.replace(CONFIG, task=task)
    cached, facts, _ = cached_rows.write_rows(config, tmp_path / "rows", steps=7, seeds=(3, 4))
    assert (facts.train_rows, facts.rows_per_shard) == (3 * 8, 7 * 8)
    for seed in (3, 4):
        source = open_source(dataclasses.replace(cached, seed=seed))
        found = itertools.islice(source.train_batches(), 7)
        for batch, wanted in zip(found, itertools.cycle(pipeline), strict=False):
            cached_rows.assert_same(batch, wanted)
        counted = np.bincount(np.concatenate([b.inputs_BS[b.targets_BS > 0] for b in pipeline]))
        assert source.count_tokens(3)[: len(counted)] == tuple(counted)


def test_what_its_types_cannot_hold_is_not_stored(task, tmp_path, pipeline):
    pipeline[1].weights_BS[2, 3] = 0.5
    with pytest.raises(UserError, match=r"the weights of this task cannot be cached: .* 0\.5"):
        cached_rows.write_rows(dataclasses.replace(CONFIG, task=task), tmp_path / "rows")
    assert list(tmp_path.iterdir()) == []


def test_a_directory_in_use_is_not_overwritten(task, tmp_path, pipeline):
    config = dataclasses.replace(CONFIG, task=task, eval_batches=1)
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("whales")
    with pytest.raises(UserError, match="exists already and has no cached rows"):
        cached_rows.write_rows(config, mine, steps=1, force=True)
    assert (mine / "thesis.txt").read_text() == "whales"
    cached_rows.write_rows(config, tmp_path / "rows", steps=1)
    with pytest.raises(UserError, match="--force replaces them"):
        cached_rows.write_rows(config, tmp_path / "rows", steps=1)
    _, facts, _ = cached_rows.write_rows(config, tmp_path / "rows", steps=2, force=True)
    assert facts.rows_per_shard == 16
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "rows"]


def test_too_little_space_is_refused_before_writing(task, tmp_path, monkeypatch, pipeline):
    config = dataclasses.replace(CONFIG, task=task, eval_batches=1)
    usage = shutil.disk_usage(tmp_path)._replace(free=1_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(UserError, match=r"the rows need up to 2,6\d\d.\d MB, and .* has 1.0 MB"):
        cached_rows.write_rows(config, tmp_path / "rows", steps=2_000_000)
    assert list(tmp_path.iterdir()) == []


def test_a_curriculum_has_no_rows_to_cache(task, tmp_path):
    config = dataclasses.replace(CONFIG, task=task, curriculum="mean")
    with pytest.raises(UserError, match="there is no order to cache"):
        cached_rows.write_rows(config, tmp_path / "rows")
    with pytest.raises(UserError, match="set one of them to None"):
        dataclasses.replace(config, rows_dir=str(tmp_path / "rows"))


def test_a_mixture_needs_a_number_of_steps(task):
    config = dataclasses.replace(CONFIG, task={task: 1, "embedded": 2})
    with pytest.raises(UserError, match="--steps=N"):
        steps_of_an_epoch(config)
