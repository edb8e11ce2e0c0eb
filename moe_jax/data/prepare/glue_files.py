"""GLUE's tasks: folders, file names, columns and labels."""

import dataclasses

from moe_jax.data.prepare.file_layout import FileNames, official_names, partial_names

DEV_IDS = ("dev_ids.tsv", "mrpc_dev_ids.tsv")
_HELD_OUT = "not the official validation data but rows held out of the training data"


@dataclasses.dataclass(frozen=True)
class GlueFiles:
    """One of GLUE's tasks.

    Attributes:
        folders: names of its folder; the first is GLUE's.
        columns: the column of each text feature.
        label: the label's column.
        classes: names of the labels in TFDS's order; none if the label is a number from 0 to 5.
    """

    folders: tuple[str, ...]
    columns: dict[str, str]
    label: str = "label"
    classes: tuple[str, ...] = ()


_PAIR = {"sentence1": "sentence1", "sentence2": "sentence2"}
_PREMISE = {"premise": "sentence1", "hypothesis": "sentence2"}
_NLI = ("entailment", "neutral", "contradiction")
_MNLI = GlueFiles(
    ("MNLI",), {"hypothesis": "sentence2", "premise": "sentence1"}, "gold_label", _NLI
)

TASKS: dict[str, GlueFiles] = {
    "cola": GlueFiles(
        ("CoLA",), {"sentence": "sentence"}, "is_acceptable", ("unacceptable", "acceptable")
    ),
    "sst2": GlueFiles(
        ("SST-2", "SST2"), {"sentence": "sentence"}, classes=("negative", "positive")
    ),
    "mrpc": GlueFiles(
        ("MRPC",),
        {"sentence1": "#1 String", "sentence2": "#2 String"},
        "Quality",
        ("not_equivalent", "equivalent"),
    ),
    "stsb": GlueFiles(("STS-B", "STSB"), _PAIR, "score"),
    "qqp": GlueFiles(
        ("QQP",),
        {"question1": "question1", "question2": "question2"},
        "is_duplicate",
        ("not_duplicate", "duplicate"),
    ),
    "mnli": _MNLI,
    "mnli_matched": _MNLI,
    "mnli_mismatched": _MNLI,
    "qnli": GlueFiles(
        ("QNLI", "QNLIv2"),
        {"question": "question", "sentence": "sentence"},
        classes=("entailment", "not_entailment"),
    ),
    "rte": GlueFiles(("RTE",), _PAIR, classes=("entailment", "not_entailment")),
    "wnli": GlueFiles(("WNLI",), _PAIR, classes=("not_entailment", "entailment")),
    "ax": GlueFiles(("AX", "diagnostic"), _PREMISE, classes=_NLI),
}


def splits(name: str) -> dict[str, tuple[FileNames, ...]]:
    """Returns the file names of a task's splits."""
    train = official_names("train.tsv") + partial_names("train.*.tsv")
    if name == "ax":
        return {"test": official_names("diagnostic.tsv", "AX.tsv", "ax.tsv")}
    if name.startswith("mnli"):
        found = {"train": train} if name == "mnli" else {}
        for kind in ("matched", "mismatched"):
            if name in ("mnli", f"mnli_{kind}"):
                suffix = f"_{kind}" if name == "mnli" else ""
                found[f"validation{suffix}"] = official_names(f"dev_{kind}.tsv")
                found[f"test{suffix}"] = official_names(f"test_{kind}.tsv")
        return found
    dev = official_names("dev.tsv") + partial_names("dev.*.tsv")
    dev += partial_names("heldout*_from_train.tsv", note=_HELD_OUT)
    test = official_names("test.tsv")
    if name == "mrpc":
        original = tuple(FileNames("msr_paraphrase_train.txt", beside=ids) for ids in DEV_IDS)
        train, dev = original + train, original + dev
        test = official_names("msr_paraphrase_test.txt", "test.tsv")
    return {"train": train, "validation": dev, "test": test}
