"""Tasks and mixtures: names, rates, checkpoints, evaluation."""

import dataclasses
import hashlib

import numpy as np
import pytest
from etils import epath
from tiers import slow

from moe_jax.data.config import DataConfig
from moe_jax.data.pipeline.input_pipeline import TrainBatches, eval_batches
from moe_jax.data.pipeline.model_features import get_dataset
from moe_jax.data.tasks import catalog, registry
from moe_jax.data.tasks.task_definition import TaskDefinition
from moe_jax.data.tasks.vocabulary import load_vocabulary
from moe_jax.errors import UserError

# Closing iterators that are still prefetching has taken minutes on a loaded machine: left open.
OPEN = []
LENGTH = 16


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Returns two texts that no row of the other looks like."""
    home = tmp_path_factory.mktemp("mixtures")
    for name, word, count in (("whales", "whale", 1500), ("ships", "ship", 700)):
        lines = [f"{word} {i} {word} {i * 7}" for i in range(count)]
        (home / f"{name}.txt").write_text("\n".join(lines))
    return f"text:{home}/whales.txt", f"text:{home}/ships.txt"


@pytest.fixture(scope="module")
def ids():
    """Returns the token of each text's word."""
    vocabulary = load_vocabulary("embedded")

    def words(word):
        tokens = [vocabulary.encode(f"{word} {i} {word} {i * 7}") for i in range(10)]
        return set.intersection(*map(set, tokens))

    whale, ship = words("whale"), words("ship")
    return whale - ship, ship - whale


def open_batches(config, **how):
    batches = TrainBatches(config, **how)
    OPEN.append(batches)
    return batches


def kinds(rows, ids):
    """Returns of each row whether it is of the first text; every row is of one."""
    has = [np.isin(rows, list(tokens)).any(1) for tokens in ids]
    assert (has[0] ^ has[1]).all()
    return has[0]


def test_rates_are_those_asked_for(files, ids):
    config = DataConfig({files[0]: 3, files[1]: 1}, LENGTH, batch_size=100, seed=4)
    batches = open_batches(config)
    first = np.concatenate([kinds(next(batches).targets_BS, ids) for _ in range(6)])
    assert abs(first.mean() - 0.75) < 4 * np.sqrt(0.75 * 0.25 / len(first))
    # Drawn, not in turn.
    assert len({tuple(block) for block in first.reshape(-1, 4)}) > 3


@pytest.mark.slow
@pytest.mark.parametrize(("shards", "pack"), [(1, True), slow(2, False)])
def test_a_restored_mixture_goes_on_exactly(tmp_path, files, ids, shards, pack):
    config = DataConfig(
        {files[0]: 0.3, files[1]: 0.7}, LENGTH, batch_size=64, shards=shards, pack=pack, seed=2
    )
    stream = open_batches(config)
    seen = [next(stream) for _ in range(12)]
    stream.save(epath.Path(tmp_path))
    expected = [next(stream) for _ in range(20)]
    # Past the end of the shorter text, and more than once.
    ships = ~kinds(np.concatenate([b.targets_BS for b in (*seen, *expected)]), ids)
    one_epoch = get_dataset(dataclasses.replace(config, task=files[1]), "train", training=False)
    assert ships.sum() > 2 * sum(1 for _ in one_epoch)
    restored = open_batches(config)
    restored.restore(epath.Path(tmp_path))
    for batch in expected:
        found = next(restored)
        for field in dataclasses.fields(batch):
            np.testing.assert_array_equal(
                getattr(found, field.name), getattr(batch, field.name), err_msg=field.name
            )
    assert expected[0].segments_BS is not None if pack else expected[0].segments_BS is None


@pytest.mark.slow
def test_a_mixture_is_evaluated_on_every_row_of_each_task(files):
    rates = {files[0]: 0.9, files[1]: 0.1}

    def rows(task):
        batches = eval_batches(DataConfig(task, LENGTH, batch_size=8))
        found = np.concatenate([batch.targets_BS for batch in batches])
        return [row.tobytes() for row in found if row.any()]

    assert rows(rates) == [row for name in sorted(rates) for row in rows(name)]
    assert all(rows(name) for name in rates)


@pytest.mark.slow
def test_every_training_row_once_when_not_training(files):
    config = DataConfig({files[0]: 0.9, files[1]: 0.1}, LENGTH, batch_size=8)

    def count(task):
        one = dataclasses.replace(config, task=task)
        return sum(1 for _ in get_dataset(one, "train", training=False))

    assert count(config.task) == count(files[0]) + count(files[1])


def test_plain_text_and_prompted_tasks_do_not_mix(files, monkeypatch):
    prompted = dataclasses.replace(a_definition("any_task"), source="nowhere:1.0.0")
    monkeypatch.setattr(catalog, "definitions", lambda: {"any_task": prompted})
    monkeypatch.setattr(registry, "tfds_source", no_source)
    config = DataConfig({files[0]: 0.5, "any_task": 0.5}, LENGTH, batch_size=8)
    with pytest.raises(
        UserError, match=r"tasks of one kind .any_task is prompted.*whales.txt is st"
    ):
        registry.find_task(config)
    both = registry.find_task(dataclasses.replace(config, objective="prefix_lm"))
    assert both.kind == "prompted"


def no_source(name, tfds_data_dir, splits=None):
    import seqio
    import tensorflow as tf

    def dataset(split, shuffle_files, seed=None):
        return tf.data.Dataset.from_tensors({"inputs": f"{name} {tfds_data_dir}", "targets": "b"})

    return seqio.FunctionDataSource(dataset, splits=["train", "validation"])


def a_definition(name, targets_length=5):
    return TaskDefinition(
        **{
            **{field.name: None for field in dataclasses.fields(TaskDefinition)},
            "name": name,
            "source": "some/where:1.0.0",
            "splits": {"train": "train", "validation": "validation"},
            "preprocessor": lambda dataset: dataset,
            "metric_fns": (),
            "targets_length": targets_length,
        }
    )


def test_a_suite_stands_for_its_tasks_at_their_rates(monkeypatch):
    suite = {"one": 3.0, "two": 1.0, "no_rows": 0.0}
    monkeypatch.setattr(catalog, "mixtures", lambda: {"many": suite})
    definitions = {name: a_definition(name, n) for n, name in enumerate([*suite, "three"], 4)}
    monkeypatch.setattr(catalog, "definitions", lambda: definitions)
    monkeypatch.setattr(registry, "tfds_source", no_source)

    def rates(task):
        found = registry.find_task(DataConfig(task, LENGTH, batch_size=8))
        mixture = found.provider
        total = sum(mixture.get_rate(part) for part in mixture.tasks)
        by_name = {p.name.partition("__")[0]: mixture.get_rate(p) / total for p in mixture.tasks}
        return found, by_name

    found, by_name = rates("many")
    assert by_name == {"one": 0.75, "two": 0.25}
    assert found.kind == "prompted"
    # The longest target of its tasks.
    assert found.targets_length == 5
    # In a mixture a suite has its one rate for all of its tasks together.
    _, by_name = rates({"many": 2, "three": 1, "one": 1})
    expected = {"one": 2 * 0.75 / 4 + 1 / 4, "two": 2 * 0.25 / 4, "three": 1 / 4}
    assert by_name == pytest.approx(expected)


def test_shipped_suites_have_known_tasks_and_rates():
    for name, suite in catalog.mixtures().items():
        assert set(suite) <= set(catalog.definitions()), name
        assert sum(suite.values()) > 0
        assert min(suite.values()) >= 0


def test_a_name_does_not_depend_on_where_the_data_are(monkeypatch):
    """And a task that is registered again reads the other directory."""
    monkeypatch.setattr(catalog, "definitions", lambda: {"place": a_definition("place")})
    monkeypatch.setattr(registry, "tfds_source", no_source)

    def read(directory):
        config = DataConfig("place", LENGTH, batch_size=8, tfds_data_dir=directory)
        provider = registry.find_task(config).provider
        dataset = provider.get_dataset(None, "train", shuffle=False)
        (example,) = dataset.as_numpy_iterator()
        return provider.name, example["inputs_pretokenized"].decode()

    here, there, again = read("/here"), read("/there"), read("/here")
    assert here[0] == there[0]
    assert [text.split()[1] for _, text in (here, there, again)] == ["/here", "/there", "/here"]


@pytest.mark.slow
def test_a_mixture_reads_the_directory_of_its_configuration(monkeypatch):
    definitions = {name: a_definition(name) for name in ("left", "right")}
    monkeypatch.setattr(catalog, "definitions", lambda: definitions)
    monkeypatch.setattr(registry, "tfds_source", no_source)
    for directory in ("/here", "/there", "/here"):
        config = DataConfig({"left": 1, "right": 1}, 32, batch_size=8, tfds_data_dir=directory)
        vocabulary = load_vocabulary("embedded")
        for row in get_dataset(config, "train", training=False).as_numpy_iterator():
            text = vocabulary.decode([int(t) for t in row["decoder_target_tokens"] if t])
            assert directory in text


def test_the_vocabulary_is_a_part_of_the_name(files, tmp_path, monkeypatch):
    names = {
        registry.find_task(DataConfig(files[0], LENGTH, objective=objective)).seqio_name
        for objective in ("lm", "prefix_lm", "span_corruption")
    }
    monkeypatch.setattr(
        registry, "_vocabulary_digest", lambda _: hashlib.sha256(b"other").hexdigest()
    )
    names.add(registry.find_task(DataConfig(files[0], LENGTH)).seqio_name)
    assert len(names) == 4


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ({}, "a mixture of no tasks"),
        ({"embedded": 0}, "Data.task\\['embedded'\\] must be above 0, not 0"),
        ({"embedded": -1.0}, "must be above 0, not -1.0"),
        ({"embedded": "much"}, "must be a number above 0, not 'much'"),
    ],
)
def test_rates_are_checked(task, message):
    with pytest.raises(UserError, match=message):
        DataConfig(task)


def test_a_rate_that_is_no_number_is_refused():
    with pytest.raises(UserError, match="must be above 0"):
        DataConfig({"embedded": float("nan"), "c4": 1.0})
