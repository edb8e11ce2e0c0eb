"""Names and numbers of a fine-tuning study as texts."""

import math
import re

from moe_jax.compare.report.digits import DASH
from moe_jax.compare.results import Estimate

# The yardsticks, by the name of the method.
METHODS = {"majority": "most frequent class", "bag_of_words": "bag of words"}
_NAMES = {
    "boolq": "BoolQ",
    "cb": "CB",
    "cola": "CoLA",
    "copa": "COPA",
    "mnli": "MNLI",
    "mrpc": "MRPC",
    "multirc": "MultiRC",
    "qnli": "QNLI",
    "qqp": "QQP",
    "record": "ReCoRD",
    "rte": "RTE",
    "sst2": "SST-2",
    "stsb": "STS-B",
    "wic": "WiC",
    "wnli": "WNLI",
    "wsc": "WSC",
}


def short_task(task: str) -> str:
    """Returns the name of a task as papers write it: `SST-2` of `glue_sst2_v002`."""
    short = re.sub(r"_v\d+(_|$)", r"\1", task)
    bare = re.sub(r"^(super_)?glue_|_simple_(eval|train)$", "", short)
    return _NAMES.get(bare, bare.replace("_", " "))


def percent(number: float | None) -> str:
    """Formats a score or a difference of scores in percent with one decimal."""
    if number is None or not math.isfinite(number):
        return DASH
    return f"{number:.1f}"


def interval(estimate: Estimate) -> str:
    """Returns `[low, high]` in percent; empty without an interval."""
    low, high = percent(estimate.low), percent(estimate.high)
    return "" if DASH in (low, high) else f"[{low}, {high}]"
