"""Directories of cached rows that do not fit, or were damaged: one line that says what is right."""

import dataclasses
import json
import shlex
import shutil

import cached_rows
import numpy as np
import pytest

from moe_jax import cli
from moe_jax.data.config import DataConfig
from moe_jax.data.pipeline.batch_source import open_source, vocabulary_for
from moe_jax.data.pipeline.row_command import row_command
from moe_jax.data.pipeline.row_directory import read_row_directory
from moe_jax.errors import UserError
from moe_jax.training.run_directory.data_manifest import data_manifest


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    home = tmp_path_factory.mktemp("rows")
    task = cached_rows.write_text(home / "numbers.txt")
    config = DataConfig(task, sequence_length=16, batch_size=4, seed=3, eval_batches=2)
    return cached_rows.write_rows(config, home / "rows")[0]


@pytest.fixture
def config(made, tmp_path):
    """Returns a configuration with a copy of the rows."""
    shutil.copytree(made.rows_dir, tmp_path / "rows")
    return dataclasses.replace(made, rows_dir=str(tmp_path / "rows"))


def read(config):
    """Reads everything as training does."""
    source = open_source(config)
    source.vocabulary()
    source.token_bytes(10)
    source.eval_batches()
    next(source.train_batches())


OTHERS = {
    "Data.task is 'text:FILES' there, 'embedded' here": {"task": "embedded"},
    "Data.sequence_length is 16 there, 32 here": {"sequence_length": 32},
    "Data.shards is 1 there, 2 here": {"shards": 2},
    "Data.pack is False there, True here": {"pack": True},
    "Data.cache_dir is set is False there, True here": {"cache_dir": "tokenised"},
    "orders of Data.seed = 3, not of 4": {"seed": 4},
    "Data.vocabulary = other.model has other contents or is not there": {
        "vocabulary": "other.model"
    },
}


@pytest.mark.parametrize(("message", "changes"), OTHERS.items(), ids=OTHERS.keys())
def test_other_settings_are_refused_with_the_command_that_is_right(made, message, changes):
    config = dataclasses.replace(made, **changes)
    with pytest.raises(UserError) as error:
        read(config)
    assert message in str(error.value)
    assert row_command(config).split()[:4] == ["moe-jax", "data", "cache", "--rows"]
    assert "\n" not in str(error.value)
    _, _, command = str(error.value).partition("make the rows: ")
    args = cli.make_parser().parse_known_args(shlex.split(command)[1:])[0]
    assert args.rows
    assert args.seeds == str(config.seed)


def test_moved_files_and_a_renamed_vocabulary_are_the_same(config, tmp_path):
    moved = dataclasses.replace(
        config,
        task="text:/nowhere/else/*.txt",
        vocabulary=f"{config.rows_dir}/vocabulary.model",
    )
    read(moved)
    (entry,) = data_manifest(moved).values()
    assert [file["name"].rpartition("/")[2] for file in entry["files"]] == ["numbers.txt"]


def test_a_directory_that_is_not_there(config, tmp_path):
    gone = dataclasses.replace(config, rows_dir=str(tmp_path / "gone"))
    for other, what in ((gone, "is not there"), (gone, "has no rows")):
        with pytest.raises(UserError, match=f"gone {what}; `moe-jax data cache --rows"):
            open_source(other)
        (tmp_path / "gone").mkdir(exist_ok=True)
    # Texts can still be generated.
    assert vocabulary_for(gone).vocab_size == vocabulary_for(config).vocab_size
    with pytest.raises(UserError, match="from a local directory; copy it"):
        read_row_directory("gs://bucket/rows")


def edit(**changes):
    def change(directory):
        entries = json.loads((directory / "rows.json").read_text())
        (directory / "rows.json").write_text(json.dumps({**entries, **changes}))

    return change


def replace(name, array):
    return lambda directory: np.save(directory / name, array)


def rows_like(name, value):
    def change(directory):
        array = np.load(directory / name, allow_pickle=False)
        np.save(directory / name, np.full_like(array, value))

    return change


DAMAGE = {
    "another version": edit(version=2),
    "no version": edit(version=None),
    "no JSON": lambda d: (d / "rows.json").write_text("{"),
    "a list": lambda d: (d / "rows.json").write_text("[]"),
    "nested": lambda d: (d / "rows.json").write_text("[" * 100_000),
    "no UTF-8": lambda d: (d / "rows.json").write_bytes(b"\xff\xfe\xff"),
    "another type": edit(train_rows="24"),
    "a truth value": edit(vocab_size=True),
    "a negative size": edit(eval_rows=-1),
    "a path as a column": edit(columns={"../../secret": "uint16"}),
    "a type with objects": edit(columns={"inputs": "O", "targets": "uint16", "weights": "uint8"}),
    "settings of another kind": edit(settings={"Data.task": 1}),
    "seeds that are no numbers": edit(seeds=["../3"]),
    "a manifest of another kind": edit(manifest={"a": 1}),
    "another fingerprint": edit(fingerprint="0"),
    "more rows than there are": edit(train_rows=1_000_000),
    "a column cut off": lambda d: (d / "train_inputs.npy").write_bytes(b"\x93NUMPY"),
    "no column": lambda d: (d / "eval_weights.npy").unlink(),
    "an order of another shape": replace("order_3.npy", np.zeros((1, 5), np.int64)),
    "rows that do not exist": rows_like("order_3.npy", 1_000),
    "rows below 0": rows_like("order_3.npy", -1),
    "tokens that do not exist": rows_like("train_targets.npy", 60_000),
    "another vocabulary": lambda d: (d / "pieces.model").write_bytes(b"whale"),
    "no vocabulary": lambda d: (d / "pieces.model").unlink(),
    "other lengths": replace("token_bytes.npy", np.zeros(3, np.int32)),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_damage_is_one_line(config, tmp_path, damage):
    damage(tmp_path / "rows")
    with pytest.raises(UserError, match=r"is damaged|cannot be read") as error:
        read(config)
    assert "\n" not in str(error.value)
    assert str(tmp_path / "rows") in str(error.value)
