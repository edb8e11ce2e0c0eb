"""Folders, file names and columns of GLUE's original files."""

import dataclasses

from moe_jax.data.prepare.file_layout import FileNames, official_names, partial_names

DEV_IDS = ("dev_ids.tsv", "mrpc_dev_ids.tsv")
_HELD_OUT = "not the official validation data but rows held out of the training data"


@dataclasses.dataclass(frozen=True)
class GlueFiles:
    """The files of one of GLUE's tasks.

    Attributes:
        folders: names of its folder; the first is GLUE's.
        columns: column of each text feature.
        label: column of the label.
    """

    folders: tuple[str, ...]
    columns: dict[str, str]
    label: str = "label"


_PAIR = {"sentence1": "sentence1", "sentence2": "sentence2"}
_PREMISE = {"premise": "sentence1", "hypothesis": "sentence2"}
_MNLI = GlueFiles(("MNLI",), {"hypothesis": "sentence2", "premise": "sentence1"}, "gold_label")

TASKS: dict[str, GlueFiles] = {
    "cola": GlueFiles(("CoLA",), {"sentence": "sentence"}, "is_acceptable"),
    "sst2": GlueFiles(("SST-2", "SST2"), {"sentence": "sentence"}),
    "mrpc": GlueFiles(("MRPC",), {"sentence1": "#1 String", "sentence2": "#2 String"}, "Quality"),
    "stsb": GlueFiles(("STS-B", "STSB"), _PAIR, "score"),
    "qqp": GlueFiles(
        ("QQP",), {"question1": "question1", "question2": "question2"}, "is_duplicate"
    ),
    "mnli": _MNLI,
    "mnli_matched": _MNLI,
    "mnli_mismatched": _MNLI,
    "qnli": GlueFiles(("QNLI", "QNLIv2"), {"question": "question", "sentence": "sentence"}),
    "rte": GlueFiles(("RTE",), _PAIR),
    "wnli": GlueFiles(("WNLI",), _PAIR),
    "ax": GlueFiles(("AX", "diagnostic"), _PREMISE),
}


def splits(name: str) -> dict[str, tuple[FileNames, ...]]:
    """Returns the file names of each split of a task."""
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
