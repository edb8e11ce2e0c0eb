"""`moe-jax data ...` and training on one's own files, in this process on a tiny model."""

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
import tiny
from on_disk import losses

from moe_jax import cli
from moe_jax.data.config import DataConfig
from moe_jax.data.pipeline.curriculum import read_train_rows
from moe_jax.data.sources.user_files import find_user_files
from moe_jax.data.tasks.vocabulary import load_vocabulary

GIN = f"""{tiny.RUN}{tiny.STEADY}
include 'routers/adaptive.gin'
STEPS = 5
Adaptive.threshold = 0.02
Model.num_layers = 1
Model.moe_every = 1
Checkpoints.every = 1000
"""


TASK = """
import seqio

seqio.TaskRegistry.add(
    "own_listed_task",
    source=seqio.FunctionDataSource(lambda split, shuffle_files, seed=None: None, splits=["train"]),
    output_features={},
)
"""


@pytest.fixture(scope="module", autouse=True)
def compiled_once(tmp_path_factory):
    """The runs of this module share what they compile."""
    from jax.experimental.compilation_cache import compilation_cache

    changed = {
        "jax_compilation_cache_dir": str(tmp_path_factory.mktemp("compiled")),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
    }
    before = {name: getattr(jax.config, name) for name in changed}
    for values in (changed, before):
        for name, value in values.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()
        if values is changed:
            yield


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Returns a directory with a configuration and a folder of texts."""
    directory = tmp_path_factory.mktemp("data")
    (directory / "tiny.gin").write_text(GIN)
    (directory / "books").mkdir()
    lines = [f"Chapter {i}: {'whale ' * (i % 5)}{i * 7}" for i in range(150)]
    (directory / "books" / "book.txt").write_text("\n".join(lines))
    return directory


@pytest.fixture
def run(capsys):
    def call(*argv, ok=True):
        """Runs a command; returns its result, or its one line of error."""
        code = cli.main([str(a) for a in (*argv, "--json")])
        captured = capsys.readouterr()
        assert code == (0 if ok else 1), captured.err
        if not ok:
            assert captured.err.count("\n") == 1
            assert "Traceback" not in captured.out + captured.err
            assert "may be a bug" not in captured.err
            return captured.err
        lines = captured.out.splitlines()
        return json.loads(lines[-1]), "\n".join(lines[:-1])

    return call


def train(run, home, name, *argv):
    return run(
        "train",
        f"--gin_file={home / 'tiny.gin'}",
        f"--output_dir={home / name}",
        f"--gin.TASK=text:{home}/books",
        *argv,
    )


def data_of(home, **changes):
    task = f"text:{home}/books"
    return DataConfig(**{"task": task, "sequence_length": 32, "batch_size": 8, **changes})


def test_list(run):
    result, shown = run("data", "list")
    assert set(result) == {"texts", "tasks", "mixtures"}
    assert {"embedded", "c4"} <= set(result["texts"])
    assert "glue_sst2_v002" in result["tasks"]
    for name, rates in result["mixtures"].items():
        assert set(rates) <= set(result["tasks"]), name
        assert name in shown
    for prefix in ("text:FILES", "jsonl:FILES", "tfrecord:FILES", "tfds:NAME"):
        assert prefix in shown


def test_list_of_tasks_that_a_module_registers(run, tmp_path):
    import gin
    import seqio

    (tmp_path / "listed_task.py").write_text(TASK)
    (tmp_path / "my.gin").write_text("import listed_task\n")
    flags = [f"--gin_file={tmp_path / 'my.gin'}", "--allow_imports=listed_task"]
    try:
        result, shown = run("data", "list", *flags)
    finally:
        gin.clear_config()
        seqio.TaskRegistry.remove("own_listed_task")
    assert "own_listed_task" in result["registered"]
    assert "own_listed_task" in shown


def test_show(run, home):
    task = f"text:{home}/books"
    flags = ["--split=train", "--examples=2", "--gin.Data.sequence_length=32"]
    result, shown = run("data", "show", task, *flags)
    rows = read_train_rows(data_of(home))["decoder_target_tokens"][:2]
    vocabulary = load_vocabulary("embedded")
    texts = [vocabulary.decode([int(t) for t in row]) for row in rows]
    assert result == {
        "task": task,
        "splits": ["train", "validation"],
        "examples": [{"tokens": 32, "tokens_in_loss": 32, "targets": text} for text in texts],
    }
    assert texts[0].split("\n")[0] in shown
    result, _ = run("data", "show", task, *flags, "--gin.Data.objective='prefix_lm'")
    for example, text in zip(result["examples"], texts, strict=True):
        assert 0 < example["tokens_in_loss"] < 32
        assert example["inputs"] + example["targets"] == text


def pieces(task, split):
    """Returns the pieces of a split; together they are the book, and each is there once."""
    found = {}
    for name in ("train", "validation"):
        rows = find_user_files(task).source().get_dataset(name, shuffle=False).as_numpy_iterator()
        found[name] = [row["text"].decode() for row in rows]
    (path,) = Path(task.removeprefix("text:")).iterdir()
    book = path.read_text()
    texts = sorted(found["train"] + found["validation"], key=lambda text: book.find(text.rstrip()))
    assert "".join(texts).rstrip() == book.rstrip()
    return found[split]


@pytest.mark.slow
def test_stats(run, home):
    task = f"text:{home}/books"
    result, _ = run("data", "stats", task, "--split=train", "--gin.Data.sequence_length=32")
    rows = read_train_rows(data_of(home))["decoder_target_tokens"]
    assert result["task"] == task
    assert result["split"] == "train"
    assert result["rows"] == len(rows)
    assert result["features"]["targets"]["tokens"] == (rows != 0).sum()
    assert result["fill"] == pytest.approx((rows != 0).mean())
    assert result["loss_share"] == 1.0
    assert result["examples"] == len(pieces(task, "train"))
    result, shown = run("data", "stats", task, "--split=train", "--examples=1")
    assert result["examples"] == 1
    assert "the first 1 examples" in shown


@pytest.mark.slow
def test_cache_and_training_from_it(run, home):
    task = f"text:{home}/books"
    result, shown = run("data", "cache", task, f"--output_dir={home / 'cache'}")
    assert result["cache_dir"] == str(home / "cache")
    ((name, splits),) = result["tasks"].items()
    assert splits == {split: len(pieces(task, split)) for split in ("train", "validation")}
    assert (home / "cache" / name / "COMPLETED").exists()
    assert f"--gin.Data.cache_dir={home / 'cache'}" in shown
    error = run("data", "cache", task, f"--output_dir={home / 'cache'}", ok=False)
    assert "exists already; --force" in error
    again, _ = run("data", "cache", task, f"--output_dir={home / 'cache'}", "--force")
    assert again == result
    flag = f"--gin.Data.cache_dir='{home / 'cache'}'"
    figures, _ = run("data", "show", task, flag, "--gin.Data.sequence_length=32")
    plain, _ = run("data", "show", task, "--gin.Data.sequence_length=32")
    assert figures == plain


def test_rows(run, home):
    """As many as the steps of the run, without one an epoch."""
    flags = [f"--gin_file={home / 'tiny.gin'}", f"--gin.TASK=text:{home}/books"]
    flags += [f"--output_dir={home / 'rows'}", "--rows"]
    result, shown = run("data", "cache", *flags, "--seeds=1,3")
    assert (result["steps"], result["seeds"]) == (5, [1, 3])
    assert "80 training rows of 32 tokens (5 steps, 2 seeds): at most" in shown
    assert f"--gin.Data.rows_dir={home / 'rows'}" in shown
    assert result["bytes"] == sum(path.stat().st_size for path in (home / "rows").iterdir())
    assert "--force replaces" in run("data", "cache", *flags, ok=False)
    task = [f"text:{home}/books", "--gin.Data.batch_size=4", "--gin.Data.sequence_length=32"]
    epoch, _ = run("data", "cache", *task, "--rows", f"--output_dir={home / 'rows'}", "--force")
    assert epoch["seeds"] == [0]
    assert epoch["fingerprint"] == result["fingerprint"]
    rows = read_train_rows(data_of(home, batch_size=4))["decoder_target_tokens"]
    assert epoch["steps"] == len(rows) // 4


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["show", "embeded"], "Did you mean 'embedded'?"),
        (["stats", "glue_sst3"], "Did you mean 'glue_sst2'?"),
        (["show", "embedded", "--split=tset"], "no split 'tset'; it has: train, validation"),
        (["stats", "embedded", "--split=tset"], "no split 'tset'; it has: train, validation"),
        (["show", "embedded", "--examples=0"], "--examples must be above 0, not 0"),
        (["show", "text:/nowhere"], "no file matches '/nowhere'"),
        (["show", "text:"], "unknown task 'text:'"),
        (["show", "curriculum:/nowhere"], "/nowhere has no complete scores"),
        (["show", "c4", "--gin.Data.tfds_data_dir='/nowhere'"], "no prepared c4/en:3.0.1 in /now"),
        (["cache", "embedded"], "data cache needs --output_dir"),
        (["cache", "--output_dir=x", "--steps=3"], "--steps needs --rows"),
        (["cache", "--output_dir=gs://x", "--rows"], "cache locally"),
        (["cache", "--output_dir=x", "--rows", "--steps=0"], "--steps must be above 0, not 0"),
        (["cache", "--output_dir=x", "--rows", "--seeds=1,b"], "'b' is no whole number"),
        (["cache", "--output_dir=x", "--rows", "--seeds=99999999999"], "Data.seed"),
        (["score", "--output_dir=x"], "data score needs --checkpoint"),
        (["score", "--checkpoint=x"], "data score needs --output_dir"),
        (["score", "--checkpoint=/nowhere", "--output_dir=x"], "no run directory /nowhere"),
        (["show", "--gin.Data.objective='lmm'"], "Did you mean 'lm'?"),
    ],
)
def test_mistakes_are_one_line(run, argv, message):
    assert message in run("data", *argv, ok=False)


@pytest.mark.slow
def test_training_on_a_folder_names_the_files_left_out(run, home, tmp_path):
    (tmp_path / "good.txt").write_text((home / "books" / "book.txt").read_text())
    (tmp_path / "photo.txt").write_bytes(b"\x89PNG\0\0")
    (tmp_path / "old.txt").write_bytes(b"caf\xe9\n" * 40)
    _, shown = train(run, home, "left_out", f"--gin.TASK=text:{tmp_path}", "--gin.STEPS=1")
    lines = [line for line in shown.splitlines() if "left out" in line or line.startswith("  /")]
    assert lines[0] == "2 of 3 files are left out:"
    assert lines[1].startswith(f"  {tmp_path}/old.txt is not UTF-8 text (byte 3)")
    assert lines[2].startswith(f"  {tmp_path}/photo.txt is not UTF-8 text (byte 0)")


@pytest.fixture(scope="module")
def steps_per_epoch(home):
    return len(read_train_rows(data_of(home))["decoder_target_tokens"]) // 8


@pytest.mark.slow
def test_a_resumed_curriculum_equals_an_uninterrupted_one(run, home, steps_per_epoch):
    """Stopped in the middle of the second epoch and again exactly where the third starts."""
    total = 3 * steps_per_epoch - 1
    flags = ["--gin.Data.curriculum='mean'", "--gin.Data.eval_batches=1"]
    _, shown = train(run, home, "whole", *flags, f"--gin.STEPS={total}")
    assert "epoch 2: " in shown
    expected = losses(home / "whole")
    assert len(expected) == total
    for steps in (steps_per_epoch + 1, 2 * steps_per_epoch, total):
        if steps == total:
            # As if it had died after the third epoch was ordered, before its first checkpoint.
            scores = "curriculum/epoch_0002"
            shutil.copytree(home / "whole" / scores, home / "parts" / scores)
        _, shown = train(run, home, "parts", *flags, f"--gin.STEPS={steps}")
        if steps == 2 * steps_per_epoch:
            assert "epoch 1 goes on in its order" in shown
    assert "epoch 2: " in shown
    assert losses(home / "parts") == expected
    orders = [
        np.load(home / name / "curriculum" / f"epoch_{epoch:04d}" / "order.npy")
        for epoch in range(3)
        for name in ("whole", "parts")
    ]
    for whole, part in zip(orders[::2], orders[1::2], strict=True):
        np.testing.assert_array_equal(whole, part)
    assert any((orders[0] != order).any() for order in orders[2:])


@pytest.mark.slow
def test_scores_order_the_training_of_another_run(run, home):
    if not (home / "whole").exists():
        train(run, home, "whole", "--gin.Data.curriculum='mean'", "--gin.STEPS=2")
    command = ["data", "score", f"--checkpoint={home / 'whole'}"]
    result, shown = run(*command, f"--output_dir={home / 'scores'}")
    order = np.load(home / "scores" / "order.npy")
    rows = read_train_rows(data_of(home))["decoder_target_tokens"]
    assert sorted(order) == list(range(len(rows)))
    assert result["rows"] == len(rows)
    assert result["order"] == "mean"
    assert result["share_first_tenth"] <= result["share_last_tenth"]
    assert len(result["share_by_layer"]) == 1
    assert all(0 <= share <= 1 for share in result["share_by_layer"])
    assert f"--gin.TASK='curriculum:{home / 'scores'}'" in shown
    task = f"curriculum:{home / 'scores'}"
    flags = ["--split=train", f"--examples={len(rows)}", "--gin.Data.sequence_length=32"]
    listed, _ = run("data", "show", task, *flags)
    vocabulary = load_vocabulary("embedded")
    texts = [vocabulary.decode([int(t) for t in rows[index] if t]) for index in order]
    assert [e["targets"] for e in listed["examples"]] == texts
    # Scored again, by another order: nothing is computed anew, and the order is written.
    flag = "--gin.Data.curriculum='distance'"
    again, _ = run(*command, f"--output_dir={home / 'scores'}", flag)
    assert again["order"] == "distance"
    assert again["share_by_layer"] == result["share_by_layer"]
    assert sorted(np.load(home / "scores" / "order.npy")) == sorted(order)
    train(run, home, "ordered", f"--gin.TASK={task}", "--gin.STEPS=1")
