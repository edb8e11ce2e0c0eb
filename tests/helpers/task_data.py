"""Small tasks for evaluation: the package's with a few rows, and a vocabulary of letters."""

import dataclasses
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from moe_jax.data.pipeline.task_examples import Choice, TaskExample, TaskExamples

GOLDEN = Path(__file__).parents[1] / "data" / "tasks" / "glue" / "golden.json"
END = 1

# A module that registers a task with 20 examples to train on and 15 for validation, and the same
# with classes.
OWN_TASK = """
import functools

import seqio
import tensorflow as tf

from moe_jax.data.tasks.metrics import accuracy
from moe_jax.data.tasks.vocabulary import load_vocabulary


def dataset(split, shuffle_files, seed=None):
    words = ["whale", "ship", "sea", "storm", "sail"]
    inputs = [f"is it a {word} {n}" for n in range(4 if split == "train" else 3) for word in words]
    targets = ["yes" if "s" in text.split()[3] else "no" for text in inputs]
    return tf.data.Dataset.from_tensor_slices({"inputs": inputs, "targets": targets})


def label(text, label_classes, **unused):
    return label_classes.index(text) if text in label_classes else -1


feature = seqio.Feature(load_vocabulary("embedded"), add_eos=True, dtype=tf.int32)
task = {
    "source": seqio.FunctionDataSource(dataset, splits=["train", "validation"]),
    "preprocessors": [seqio.preprocessors.tokenize, seqio.preprocessors.append_eos_after_trim],
    "output_features": {"inputs": feature, "targets": feature},
    "metric_fns": [accuracy],
}
seqio.TaskRegistry.add("evaluated_task", **task)
by_class = functools.partial(label, label_classes=["no", "yes"])
seqio.TaskRegistry.add("ranked_task", postprocess_fn=by_class, **task)
"""


class Letters:
    """A vocabulary of 26 letters and the space, with the ids from 3 on."""

    eos_id, unk_id, vocab_size = END, 2, 30

    def encode(self, text: str) -> list[int]:
        """Returns a token for each character."""
        return [29 if c == " " else ord(c) - 94 if "a" <= c <= "z" else 2 for c in text]

    def decode(self, tokens: Iterable[int]) -> str:
        """Returns the text of tokens."""
        return "".join({29: " "}.get(t, chr(t + 94)) for t in tokens if t > 2)


LETTERS = Letters()


def encoded(text: str) -> tuple[int, ...]:
    """Returns the tokens of a text with the end."""
    return (*LETTERS.encode(text), END)


def make_task(
    rows: Sequence[tuple[str, str]], classes: Sequence[str] = (), **changes: Any
) -> TaskExamples:
    """Returns a task of rows (inputs, target); its metrics get texts."""
    choices = tuple(Choice(text, encoded(text)) for text in classes)
    made = tuple(
        TaskExample(number, encoded(inputs), encoded(target), target, target, choices, {})
        for number, (inputs, target) in enumerate(rows)
    )
    task = TaskExamples(
        "a_task", "validation", made, lambda text, features: text, (), (), LETTERS, 6
    )
    return dataclasses.replace(task, **changes)


def golden_rows(task: str) -> list[dict[str, Any]]:
    """Returns rows of a task of GLUE or SuperGLUE, as TensorFlow Datasets has them."""
    return [made["row"] for made in json.loads(GOLDEN.read_text(encoding="utf-8"))["tasks"][task]]


def use_rows(monkeypatch: Any, rows: dict[str, Sequence[dict[str, Any]]]) -> None:
    """Lets the package's tasks read rows from memory instead of prepared data sets.

    Args:
        monkeypatch: pytest's.
        rows: rows of the validation split by the data set's name, such as `glue/sst2`.
    """
    import seqio
    import tensorflow as tf

    from moe_jax.data.tasks import registry
    from moe_jax.errors import UserError

    def tensors(row: Any, name: str = "") -> Any:
        if isinstance(row, dict):
            return {key: tensors(value, key) for key, value in row.items()}
        if isinstance(row, list):
            return tf.constant(row, tf.string)
        number = tf.int64 if name in ("label", "span2_index") else tf.int32
        return tf.constant(row, {str: tf.string, float: tf.float32}.get(type(row), number))

    def source(name: str, directory: str | None, splits: Any = None) -> seqio.DataSource:
        own = rows.get(name.partition(":")[0])
        if own is None:
            raise UserError(f"there is no prepared {name}")

        def dataset(split: str, shuffle_files: bool, seed: int | None = None) -> tf.data.Dataset:
            made = [tensors(row) for row in own]
            spec = tf.nest.map_structure(
                lambda value: tf.TensorSpec([None] * value.shape.rank, value.dtype), made[0]
            )
            return tf.data.Dataset.from_generator(lambda: made, output_signature=spec)

        known = splits if splits is not None else {"validation": "validation"}
        return seqio.FunctionDataSource(dataset, splits=[s for s in known if s == "validation"])

    monkeypatch.setattr(registry, "tfds_source", source)
    monkeypatch.setattr(registry, "_directories", {})
    for name in list(seqio.TaskRegistry.names()):
        if "__" in name and name.partition("__")[0] in _known():
            seqio.TaskRegistry.remove(name)


def _known() -> set[str]:
    from moe_jax.data.tasks import catalog

    return set(catalog.definitions())
