"""Files to submit to the GLUE and SuperGLUE leaderboards, from predictions for the test splits.

Formats: gluebenchmark.com and super.gluebenchmark.com, "submit": a zip file with one file per task.
GLUE's are tables `index<TAB>prediction` with a header; SuperGLUE's have a JSON object a line.
"""

import collections
import io
import zipfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from moe_jax import strict_json
from moe_jax.errors import UserError

Row = Mapping[str, Any]
# The time of every file in a zip file: equal predictions give equal bytes.
_TIME = (1980, 1, 1, 0, 0, 0)
# Files of GLUE by task, with the predictions as they are written.
_GLUE: dict[str, tuple[str, Mapping[str, str]]] = {
    "glue_cola_v002": ("CoLA", {"unacceptable": "0", "acceptable": "1"}),
    "glue_sst2_v002": ("SST-2", {"negative": "0", "positive": "1"}),
    "glue_mrpc_v002": ("MRPC", {"not_equivalent": "0", "equivalent": "1"}),
    "glue_qqp_v002": ("QQP", {"not_duplicate": "0", "duplicate": "1"}),
    "glue_stsb_v002": ("STS-B", {}),
    "glue_mnli_matched_v002": ("MNLI-m", {}),
    "glue_mnli_mismatched_v002": ("MNLI-mm", {}),
    "glue_mnli_v002": ("MNLI-m", {}),
    "glue_qnli_v002": ("QNLI", {}),
    "glue_rte_v002": ("RTE", {}),
    "glue_wnli_v002": ("WNLI", {"not_entailment": "0", "entailment": "1"}),
    "glue_ax_v002": ("AX", {}),
}


def _boolean(text: str) -> Any:
    return {"True": "true", "False": "false"}.get(text, text)


def _same(text: str) -> Any:
    return text


def _choice(text: str) -> Any:
    return {"choice1": 0, "choice2": 1}.get(text, 0)


# Files of SuperGLUE by task, with the label of a prediction.
_SUPER_GLUE: dict[str, tuple[str, Callable[[str], Any]]] = {
    "super_glue_boolq_v102": ("BoolQ", _boolean),
    "super_glue_cb_v102": ("CB", _same),
    "super_glue_copa_v102": ("COPA", _choice),
    "super_glue_multirc_v102": ("MultiRC", lambda text: int(text == "True")),
    "super_glue_record_v102": ("ReCoRD", _same),
    "super_glue_rte_v102": ("RTE", _same),
    "super_glue_wic_v102": ("WiC", _boolean),
    "super_glue_axb_v102": ("AX-b", _same),
    "super_glue_axg_v102": ("AX-g", _same),
}
# Its predictions are nouns.
_WSC = "super_glue_wsc_v102_simple_eval"


def submission_files(predictions: Mapping[str, Sequence[Row]]) -> dict[str, bytes]:
    """Returns the zip files to submit, `GLUE.zip` and `SuperGLUE.zip`, by name.

    Args:
        predictions: rows of a file of predictions for a test split, by full name of the task;
            `idx` is the benchmark's number of the example. Tasks of neither benchmark are left out.

    Returns:
        a file for each benchmark of which a task is there; equal predictions give equal bytes.

    Raises:
        UserError: for an example without the benchmark's number.
    """
    glue = {
        f"{_GLUE[task][0]}.tsv": _table(task, rows)
        for task, rows in predictions.items()
        if task in _GLUE
    }
    super_glue = {
        f"{_SUPER_GLUE[task][0]}.jsonl": _lines(task, rows)
        for task, rows in predictions.items()
        if task in _SUPER_GLUE
    }
    if _WSC in predictions:
        super_glue["WSC.jsonl"] = _nouns(predictions[_WSC])
    found = {"GLUE.zip": glue, "SuperGLUE.zip": super_glue}
    return {name: _zipped(files) for name, files in found.items() if files}


def missing_files(predictions: Mapping[str, Sequence[Row]]) -> dict[str, list[str]]:
    """Returns the files that a submission to a benchmark still lacks, by name of its zip file."""
    needed = {
        "GLUE.zip": {name for task, (name, _) in _GLUE.items()},
        "SuperGLUE.zip": {*(name for name, _ in _SUPER_GLUE.values()), "WSC"},
    }
    has = {
        "GLUE.zip": {_GLUE[task][0] for task in predictions if task in _GLUE},
        "SuperGLUE.zip": {
            "WSC" if task == _WSC else _SUPER_GLUE[task][0]
            for task in predictions
            if task == _WSC or task in _SUPER_GLUE
        },
    }
    return {name: sorted(needed[name] - has[name]) for name in needed if has[name]}


def _table(task: str, rows: Sequence[Row]) -> str:
    """Returns the table of a task of GLUE, in the order of the benchmark's numbers."""
    labels = _GLUE[task][1]
    numbered = sorted((_number(task, row), str(row["prediction"])) for row in rows)
    lines = [f"{number}\t{labels.get(text, text)}" for number, text in numbered]
    return "\n".join(["index\tprediction", *lines]) + "\n"


def _lines(task: str, rows: Sequence[Row]) -> str:
    """Returns the lines of a task of SuperGLUE."""
    label = _SUPER_GLUE[task][1]
    if task.startswith("super_glue_multirc"):
        objects = _passages(task, rows, label)
    elif task.startswith("super_glue_record"):
        # Several correct answers make several examples of one query; their predictions agree.
        by_query = {row["idx"]["query"]: row for row in rows}
        objects = [
            {"idx": int(query), "label": label(str(row["prediction"]))}
            for query, row in sorted(by_query.items())
        ]
    else:
        numbered = sorted((_number(task, row), str(row["prediction"])) for row in rows)
        objects = [{"idx": number, "label": label(text)} for number, text in numbered]
    return "".join(strict_json.dumps(found) + "\n" for found in objects)


def _nouns(rows: Sequence[Row]) -> str:
    """Returns the lines of WSC: whether a predicted noun is that of the example, its target."""
    from moe_jax.data.tasks.glue.postprocessors import wsc_simple  # It imports TensorFlow.

    labels = {
        _number(_WSC, row): wsc_simple(
            str(row["prediction"]), {"targets_pretokenized": str(row["target"])}
        )
        for row in rows
    }
    return "".join(
        strict_json.dumps({"idx": number, "label": str(label == 1)}) + "\n"
        for number, label in sorted(labels.items())
    )


def _passages(task: str, rows: Sequence[Row], label: Callable[[str], Any]) -> list[dict[str, Any]]:
    """Returns MultiRC's answers nested in their questions, nested in their paragraphs."""
    nested: dict[int, dict[int, dict[int, Any]]] = collections.defaultdict(
        lambda: collections.defaultdict(dict)
    )
    for row in rows:
        idx = row.get("idx")
        if not isinstance(idx, Mapping) or not {"paragraph", "question", "answer"} <= idx.keys():
            raise _without_number(task, row)
        nested[idx["paragraph"]][idx["question"]][idx["answer"]] = label(str(row["prediction"]))
    return [
        {
            "idx": paragraph,
            "passage": {
                "questions": [
                    {
                        "idx": question,
                        "answers": [{"idx": i, "label": a} for i, a in sorted(answers.items())],
                    }
                    for question, answers in sorted(questions.items())
                ]
            },
        }
        for paragraph, questions in sorted(nested.items())
    ]


def _number(task: str, row: Row) -> int:
    number = row.get("idx")
    if not isinstance(number, int):
        raise _without_number(task, row)
    return number


def _without_number(task: str, row: Row) -> UserError:
    return UserError(
        f"the prediction {row.get('index')} of {task} has no idx, the benchmark's number of the "
        "example: no submission can be made of it"
    )


def _zipped(files: Mapping[str, str]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in sorted(files.items()):
            archive.writestr(zipfile.ZipInfo(name, _TIME), text.encode(), zipfile.ZIP_DEFLATED)
    return stream.getvalue()
