"""Caches of tokenised tasks: the same examples, and no incomplete caches."""

import collections
import dataclasses
import json

import numpy as np
import pytest
import seqio
from etils import epath

from moe_jax.data.config import DataConfig
from moe_jax.data.pipeline import task_cache
from moe_jax.data.pipeline.input_pipeline import TrainBatches, eval_batches
from moe_jax.data.pipeline.model_features import is_cached
from moe_jax.data.pipeline.task_cache import cache_task
from moe_jax.data.tasks.registry import find_task
from moe_jax.data.tasks.vocabulary import load_vocabulary
from moe_jax.errors import UserError

OPEN = []
SPLITS = ("train", "validation")


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    home = tmp_path_factory.mktemp("texts")
    for name in ("a", "b"):
        lines = [f"{name}: Line {i} of a whale naïve {i * i}" for i in range(3000)]
        (home / f"{name}.txt").write_text("\n".join(lines))
    return DataConfig(f"text:{home}/*.txt", sequence_length=32, batch_size=8, seed=1)


@pytest.fixture(scope="module")
def cached(config, tmp_path_factory):
    """Returns the configuration that reads a cache of three files a split, and what was written."""
    home = tmp_path_factory.mktemp("cached")
    patch = pytest.MonkeyPatch()
    patch.setattr(task_cache, "_EXAMPLES_PER_FILE", 80)
    written = cache_task(config, str(home))
    patch.undo()
    return dataclasses.replace(config, cache_dir=str(home)), written


def examples(provider, split, use_cached):
    dataset = provider.get_dataset(None, split, shuffle=False, use_cached=use_cached)
    return collections.Counter(
        (tuple(e["targets"].tolist()), e["targets_pretokenized"])
        for e in dataset.as_numpy_iterator()
    )


def test_a_cache_has_the_same_examples_in_all_splits(cached):
    config, written = cached
    provider = find_task(config).provider
    assert is_cached(config, find_task(config))
    assert set(written[provider.name]) == set(SPLITS)
    for split in SPLITS:
        expected = examples(provider, split, use_cached=False)
        assert examples(provider, split, use_cached=True) == expected
        assert written[provider.name][split] == sum(expected.values())
        stats = provider.get_cached_stats(split)
        sizes = [len(tokens) for tokens, _ in expected.elements()]
        assert stats["examples"] == len(sizes)
        assert stats["targets_tokens"] == sum(sizes)
        assert stats["targets_max_tokens"] == max(sizes)
    directory = epath.Path(config.cache_dir) / provider.name
    assert len(list(directory.glob("train.tfrecord-*-of-00003"))) == 3
    assert len(list(directory.glob("validation.tfrecord-*-of-00001"))) == 1


def test_training_reads_the_cache_and_not_the_texts(cached, monkeypatch):
    """And is restored exactly; evaluation is that of the texts."""
    config, _ = cached
    expected = [b.targets_BS for b in eval_batches(dataclasses.replace(config, cache_dir=None))]

    def unread(*_, **__):
        raise AssertionError("the texts are read")

    monkeypatch.setattr(find_task(config).provider.source, "get_dataset", unread)
    found = [b.targets_BS for b in eval_batches(config)]
    np.testing.assert_array_equal(np.sort(found, None), np.sort(expected, None))
    stream = TrainBatches(config)
    OPEN.append(stream)
    next(stream)
    directory = epath.Path(config.cache_dir) / "position"
    stream.save(directory)
    batches = [next(stream).targets_BS for _ in range(5)]
    restored = TrainBatches(config)
    OPEN.append(restored)
    restored.restore(directory)
    np.testing.assert_array_equal([next(restored).targets_BS for _ in range(5)], batches)
    directory.rmtree()


def test_positions_in_texts_and_in_their_cache_are_not_the_same(cached, tmp_path):
    config, _ = cached
    stream = TrainBatches(config)
    OPEN.append(stream)
    stream.save(epath.Path(tmp_path))
    texts = TrainBatches(dataclasses.replace(config, cache_dir=None))
    OPEN.append(texts)
    with pytest.raises(UserError, match="cached: True -> False"):
        texts.restore(epath.Path(tmp_path))


def test_a_task_that_is_not_in_the_cache_is_refused(cached):
    config, _ = cached
    other = dataclasses.replace(config, task="embedded")
    with pytest.raises(UserError, match=r"task 'embedded__.*' is not in Data.cache_dir"):
        eval_batches(other)
    # Half a mixture is not enough.
    mixture = dataclasses.replace(config, task={config.task: 1.0, "embedded": 1.0})
    with pytest.raises(UserError, match=r"task 'embedded__.*' is not in Data.cache_dir"):
        eval_batches(mixture)


def test_another_cache_directory_is_another_one(cached, tmp_path):
    """A cache that was read before, in this process, does not stand in for it."""
    config, _ = cached
    assert is_cached(config, find_task(config))
    empty = dataclasses.replace(config, cache_dir=str(tmp_path))
    with pytest.raises(UserError, match=r"is not in Data.cache_dir"):
        is_cached(empty, find_task(empty))


def test_the_home_directory(config, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "one.txt").write_text("A whale.\n" * 200)
    one = dataclasses.replace(config, task="text:~/one.txt")
    cache_task(one, "~/cache")
    assert is_cached(dataclasses.replace(one, cache_dir="~/cache"), find_task(one))


@pytest.mark.slow
def test_what_is_there_is_written_over_by_force_only(cached):
    config, written = cached
    (name,) = written
    with pytest.raises(UserError, match=rf"{name} exists already; --force overwrites it"):
        cache_task(config, config.cache_dir)
    directory = epath.Path(config.cache_dir) / name
    (directory / "old").touch()
    assert cache_task(config, config.cache_dir, force=True) == written
    assert not (directory / "old").exists()
    # One file now: the fixture's had few examples each.
    info = json.loads((directory / "info.train.json").read_text())
    assert info["num_shards"] == 1
    assert len(list(directory.glob("train.tfrecord-*"))) == 1
    provider = find_task(config).provider
    assert is_cached(config, find_task(config))
    assert examples(provider, "train", True) == examples(provider, "train", False)


def test_what_another_wrote_meanwhile_is_left_as_it_is(tmp_path):
    own, target = tmp_path / "own", tmp_path / "task"
    for directory in (own, target):
        directory.mkdir()
        (directory / "COMPLETED").write_text(directory.name)
    with pytest.raises(UserError, match="task was written by another process meanwhile"):
        task_cache.move_complete(own, target, tmp_path / "replaced", force=False)
    assert (target / "COMPLETED").read_text() == "task"
    task_cache.move_complete(own, target, tmp_path / "replaced", force=True)
    assert (target / "COMPLETED").read_text() == "own"
    assert (tmp_path / "replaced" / "COMPLETED").read_text() == "task"


@pytest.mark.slow
def test_an_interrupted_cache_leaves_nothing(config, tmp_path, monkeypatch):
    real = task_cache._write_split

    def stop(task, split, directory):
        count = real(task, split, directory)
        if split == "validation":
            raise KeyboardInterrupt
        return count

    monkeypatch.setattr(task_cache, "_write_split", stop)
    with pytest.raises(KeyboardInterrupt):
        cache_task(config, str(tmp_path))
    assert list(tmp_path.iterdir()) == []
    # Nor does it harm one that is there.
    monkeypatch.undo()
    cache_task(config, str(tmp_path))
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    monkeypatch.setattr(task_cache, "_write_split", stop)
    with pytest.raises(KeyboardInterrupt):
        cache_task(config, str(tmp_path), force=True)
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


@pytest.mark.slow
def test_every_task_of_a_mixture_is_cached(tmp_path):
    for name in ("x", "y"):
        (tmp_path / f"{name}.txt").write_text(f"{name} is a ship\n" * 3000)
    rates = {f"text:{tmp_path}/x.txt": 0.5, f"text:{tmp_path}/y.txt": 0.5}
    mixture = DataConfig(rates, sequence_length=16, batch_size=4, objective="span_corruption")
    written = cache_task(mixture, str(tmp_path / "cache"))
    assert len(written) == 2
    reading = dataclasses.replace(mixture, cache_dir=str(tmp_path / "cache"))
    assert is_cached(reading, find_task(reading))
    # Masked after the cache: a cache does not fix what is masked.
    found = np.concatenate([b.targets_BS for b in eval_batches(reading)])
    expected = np.concatenate([b.targets_BS for b in eval_batches(mixture)])
    np.testing.assert_array_equal(found, expected)
    assert np.isin(found, load_vocabulary("embedded").vocab_size - 1).any()


@pytest.mark.parametrize("directory", ["gs://bucket/cache", "s3://x"])
def test_a_remote_directory_is_refused(config, directory):
    with pytest.raises(UserError, match="cache locally, then copy"):
        cache_task(config, directory)


def test_a_task_without_a_place_for_a_cache_is_refused(tmp_path, config):
    feature = seqio.Feature(load_vocabulary("embedded"))
    seqio.TaskRegistry.add(
        "no:place",
        source=find_task(config).provider.source,
        preprocessors=[seqio.preprocessors.tokenize],
        output_features={"targets": feature},
        metric_fns=[],
    )
    with pytest.raises(UserError, match=r"'no:place' has no seqio.CacheDatasetPlaceholder"):
        cache_task(dataclasses.replace(config, task="no:place"), str(tmp_path))
