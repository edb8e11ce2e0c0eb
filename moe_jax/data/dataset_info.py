"""Published facts about data sets: version, number of examples of each split, class labels.

The counts of GLUE, SuperGLUE, definite_pronoun_resolution, SQuAD, CNN/DailyMail, WMT19 (train,
validation) and C4 are those of the TensorFlow Datasets catalogue (MultiRC counted by answer, ReCoRD
by query, as TFDS does). SODA: its data card. WikiText: articles, table 1 of its paper (Merity
et al. 2016, arXiv:1609.07843).
"""

import dataclasses
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class DatasetInfo:
    """A data set as it was published.

    Attributes:
        version: version of the data in TensorFlow Datasets.
        splits: number of examples of each split.
        labels: names of the classes in TFDS's order; empty where the label is no class.
    """

    version: str
    splits: Mapping[str, int]
    labels: tuple[str, ...] = ()


def _splits(train: int, validation: int, test: int) -> dict[str, int]:
    return {"train": train, "validation": validation, "test": test}


_NLI = ("entailment", "neutral", "contradiction")
_ENTAILMENT = ("entailment", "not_entailment")
_BOOL = ("False", "True")
_MNLI_SPLITS = {
    "train": 392_702,
    "validation_matched": 9_815,
    "validation_mismatched": 9_832,
    "test_matched": 9_796,
    "test_mismatched": 9_847,
}

_GLUE = {
    "cola": DatasetInfo("2.0.0", _splits(8_551, 1_043, 1_063), ("unacceptable", "acceptable")),
    "sst2": DatasetInfo("2.0.0", _splits(67_349, 872, 1_821), ("negative", "positive")),
    "mrpc": DatasetInfo("2.0.0", _splits(3_668, 408, 1_725), ("not_equivalent", "equivalent")),
    "stsb": DatasetInfo("2.0.0", _splits(5_749, 1_500, 1_379)),
    "qqp": DatasetInfo("2.0.0", _splits(363_846, 40_430, 390_965), ("not_duplicate", "duplicate")),
    "mnli": DatasetInfo("2.0.0", _MNLI_SPLITS, _NLI),
    "mnli_matched": DatasetInfo("2.0.0", {"validation": 9_815, "test": 9_796}, _NLI),
    "mnli_mismatched": DatasetInfo("2.0.0", {"validation": 9_832, "test": 9_847}, _NLI),
    "qnli": DatasetInfo("2.0.0", _splits(104_743, 5_463, 5_463), _ENTAILMENT),
    "rte": DatasetInfo("2.0.0", _splits(2_490, 277, 3_000), _ENTAILMENT),
    "wnli": DatasetInfo("2.0.0", _splits(635, 71, 146), ("not_entailment", "entailment")),
    "ax": DatasetInfo("2.0.0", {"test": 1_104}, _NLI),
}

_SUPER_GLUE = {
    "boolq": DatasetInfo("1.0.2", _splits(9_427, 3_270, 3_245), _BOOL),
    "cb": DatasetInfo("1.0.2", _splits(250, 56, 250), ("entailment", "contradiction", "neutral")),
    "copa": DatasetInfo("1.0.2", _splits(400, 100, 500), ("choice1", "choice2")),
    "multirc": DatasetInfo("1.0.2", _splits(27_243, 4_848, 9_693), _BOOL),
    "record": DatasetInfo("1.0.2", _splits(100_730, 10_000, 10_000)),
    "rte": DatasetInfo("1.0.2", _splits(2_490, 277, 3_000), _ENTAILMENT),
    "wic": DatasetInfo("1.0.2", _splits(5_428, 638, 1_400), _BOOL),
    "wsc": DatasetInfo("1.0.2", _splits(554, 104, 146), _BOOL),
    "wsc.fixed": DatasetInfo("1.0.2", _splits(554, 104, 146), _BOOL),
    "axb": DatasetInfo("1.0.2", {"test": 1_104}, _ENTAILMENT),
    "axg": DatasetInfo("1.0.2", {"test": 356}, _ENTAILMENT),
}

_WIKITEXT = {
    f"wikitext-{size}{suffix}": DatasetInfo("1.0.0", _splits(train, 60, 60))
    for size, train in (("2", 600), ("103", 28_475))
    for suffix in ("", "-raw")
}

# By TensorFlow Datasets' name, builder/config.
DATASETS: Mapping[str, DatasetInfo] = {
    **{f"glue/{config}": info for config, info in _GLUE.items()},
    **{f"super_glue/{config}": info for config, info in _SUPER_GLUE.items()},
    "definite_pronoun_resolution": DatasetInfo("1.1.0", {"train": 1_322, "test": 564}),
    "squad/v1.1": DatasetInfo("3.0.0", {"train": 87_599, "validation": 10_570}),
    "cnn_dailymail": DatasetInfo("3.4.0", _splits(287_113, 13_368, 11_490)),
    "wmt19_translate/de-en": DatasetInfo("1.0.0", {"train": 38_690_334, "validation": 2_998}),
    "c4/en": DatasetInfo("3.0.1", {"train": 364_868_892, "validation": 364_608}),
    "soda/dialogues": DatasetInfo("1.0.0", _splits(1_191_582, 146_346, 148_968)),
    **{f"wikitext/{config}": info for config, info in _WIKITEXT.items()},
}

# Training examples in T5's mixing rates (t5 0.9.4, `glue_utils`) where they differ from the data
# set's: T5 read version 1.0.0 of QQP, makes an example of each answer of ReCoRD, and trains on the
# rows of WSC whose noun is the right one.
_T5_TRAIN_EXAMPLES = {
    "glue/qqp": 363_849,
    "super_glue/record": 138_854,
    "super_glue/wsc.fixed": 259,
}


def versioned(dataset: str) -> str:
    """Returns TFDS's full name of a data set in `DATASETS`, such as `glue/sst2:2.0.0`."""
    return f"{dataset}:{DATASETS[dataset].version}"


def num_mixture_examples(dataset: str) -> int:
    """Returns the training examples by which a data set's task is weighted in a mixture."""
    return _T5_TRAIN_EXAMPLES.get(dataset) or DATASETS[dataset].splits.get("train", 0)
