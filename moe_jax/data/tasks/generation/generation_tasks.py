"""The text generation tasks of Adaptive Gating (Li et al. 2023, arXiv 2310.07188).

| name                    | alias         | task                          | metrics          |
|-------------------------|---------------|-------------------------------|------------------|
| `squad_v010_allanswers` | squad         | answers a question on a text  | EM, F1           |
| `cnn_dailymail_v002`    | cnn_dailymail | summarises an article         | ROUGE-1, 2, Lsum |
| `wmt19_deen_v003`       | wmt19_de_en   | translates German to English  | BLEU             |
| `wmt19_ende_v003`       | wmt19_en_de   | translates English to German  | BLEU             |
| `soda_v001`             | soda          | says a dialogue's next turn   | none: its loss   |

The paper's sixth, wikitext, is plain language modelling; its sentiment task is GLUE's. Names are
T5's where T5 has the task. T5 has WMT19 from English to German only; the paper speaks of both
directions. SODA is not in TensorFlow Datasets: `moe-jax data prepare soda` makes
`soda/dialogues:1.0.0` with the features narrative (text), speakers and dialogue (lists of texts).
"""

import dataclasses
from typing import Any

import tensorflow as tf

from moe_jax.data.dataset_info import num_mixture_examples, versioned
from moe_jax.data.tasks.feature_specs import TEXT, TEXTS, Features, check_spec
from moe_jax.data.tasks.generation import preprocessors
from moe_jax.data.tasks.metrics import bleu, rouge, squad
from moe_jax.data.tasks.task_definition import TaskDefinition
from moe_jax.errors import UserError, nearest

_TRAIN_VALIDATION = {"train": "train", "validation": "validation"}
_ALL_SPLITS = {**_TRAIN_VALIDATION, "test": "test"}

# Features of its source that each task reads.
FEATURES: dict[str, Features] = {
    "squad_v010_allanswers": {"question": TEXT, "context": TEXT, "answers": {"text": TEXTS}},
    "cnn_dailymail_v002": {"article": TEXT, "highlights": TEXT},
    "wmt19_deen_v003": {"de": TEXT, "en": TEXT},
    "wmt19_ende_v003": {"de": TEXT, "en": TEXT},
    "soda_v001": {"narrative": TEXT, "speakers": TEXTS, "dialogue": TEXTS},
}

# Tasks that make any number of examples of one.
ONE_TO_MANY_TASKS = frozenset({"soda_v001"})


def answer_or_answers(text: str, example: Any = None, is_target: bool = False, **_: Any) -> Any:
    """Returns a prediction unchanged and, for a target, all correct answers: T5's `qa`."""
    if is_target:
        return [tf.compat.as_text(answer) for answer in example["answers"]]
    return text


def _translation(name: str, source: tuple[str, str], target: tuple[str, str]) -> TaskDefinition:
    return TaskDefinition(
        name=name,
        source=versioned("wmt19_translate/de-en"),
        splits=_TRAIN_VALIDATION,  # TFDS has no test split of WMT19.
        preprocessor=preprocessors.translation(source, target),
        postprocessor=None,
        metric_fns=(bleu,),
        targets_length=128,
        num_train_examples=num_mixture_examples("wmt19_translate/de-en"),
    )


_GERMAN, _ENGLISH = ("de", "German"), ("en", "English")

_DEFINITIONS = (
    TaskDefinition(
        name="squad_v010_allanswers",
        source=versioned("squad/v1.1"),
        splits=_TRAIN_VALIDATION,
        preprocessor=preprocessors.question_answering,
        postprocessor=answer_or_answers,
        metric_fns=(squad,),
        targets_length=32,
        num_train_examples=num_mixture_examples("squad/v1.1"),
    ),
    TaskDefinition(
        name="cnn_dailymail_v002",
        source=versioned("cnn_dailymail"),
        splits=_ALL_SPLITS,
        preprocessor=preprocessors.summarization,
        postprocessor=None,
        metric_fns=(rouge,),
        targets_length=256,
        num_train_examples=num_mixture_examples("cnn_dailymail"),
    ),
    _translation("wmt19_deen_v003", _GERMAN, _ENGLISH),
    _translation("wmt19_ende_v003", _ENGLISH, _GERMAN),
    TaskDefinition(
        name="soda_v001",
        source=versioned("soda/dialogues"),
        splits=_ALL_SPLITS,
        preprocessor=preprocessors.dialogue,
        postprocessor=None,
        metric_fns=(),
        targets_length=128,
        num_train_examples=num_mixture_examples(
            "soda/dialogues"
        ),  # Dialogues, each of several examples.
    ),
)


def _with_check(definition: TaskDefinition) -> TaskDefinition:
    """Adds a check that the examples have the features that the task reads."""
    name, convert = definition.name, definition.preprocessor

    def checked(dataset: tf.data.Dataset) -> tf.data.Dataset:
        check_spec(name, FEATURES[name], dataset.element_spec)
        return convert(dataset)

    return dataclasses.replace(definition, preprocessor=checked)


DEFINITIONS = {definition.name: _with_check(definition) for definition in _DEFINITIONS}

ALIASES = {
    "squad": "squad_v010_allanswers",
    "cnn_dailymail": "cnn_dailymail_v002",
    "wmt19_de_en": "wmt19_deen_v003",
    "wmt19_en_de": "wmt19_ende_v003",
    "soda": "soda_v001",
}


def get_definition(name: str) -> TaskDefinition:
    """Returns the definition of a name or an alias.

    Raises:
        UserError: if there is no such generation task.
    """
    definition = DEFINITIONS.get(ALIASES.get(name, name))
    if definition is None:
        known = sorted([*ALIASES, *DEFINITIONS])
        raise UserError(
            f"unknown generation task {name!r}; known: {', '.join(known)}." + nearest(name, known)
        )
    return definition
