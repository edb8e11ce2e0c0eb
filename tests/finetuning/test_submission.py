"""Files to submit, against examples written by hand in the benchmarks' formats."""

import io
import json
import zipfile

import pytest

from moe_jax.data.dataset_info import DATASETS
from moe_jax.errors import UserError
from moe_jax.finetuning import submission
from moe_jax.finetuning.submission import missing_files, submission_files


def files_of(content):
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name).decode() for name in archive.namelist()}


def rows(*predictions):
    """Predictions whose numbers are not in their order."""
    return [
        {"index": place, "idx": number, "prediction": text}
        for place, (number, text) in enumerate(predictions)
    ]


def test_glue_has_tables_in_the_order_of_its_numbers():
    found = submission_files(
        {
            "glue_sst2_v002": rows((1, "negative"), (0, "positive")),
            "glue_rte_v002": rows((0, "not_entailment"), (1, "entailment")),
            "glue_stsb_v002": rows((0, "3.4")),
            "my_task": rows((0, "x")),
        }
    )
    assert set(found) == {"GLUE.zip"}
    assert files_of(found["GLUE.zip"]) == {
        "RTE.tsv": "index\tprediction\n0\tnot_entailment\n1\tentailment\n",
        "SST-2.tsv": "index\tprediction\n0\t1\n1\t0\n",
        "STS-B.tsv": "index\tprediction\n0\t3.4\n",
    }


def test_super_glue_has_objects_a_line():
    found = submission_files(
        {
            "super_glue_boolq_v102": rows((1, "True"), (0, "False")),
            "super_glue_copa_v102": rows((0, "choice2")),
            "super_glue_cb_v102": rows((0, "neutral")),
            "super_glue_record_v102": [
                {"index": 0, "idx": {"passage": 4, "query": 7}, "prediction": "Paris"},
                {"index": 1, "idx": {"passage": 4, "query": 7}, "prediction": "Paris"},
            ],
        }
    )
    lines = {
        name: [json.loads(line) for line in text.splitlines()]
        for name, text in files_of(found["SuperGLUE.zip"]).items()
    }
    assert lines == {
        "BoolQ.jsonl": [{"idx": 0, "label": "false"}, {"idx": 1, "label": "true"}],
        "COPA.jsonl": [{"idx": 0, "label": 1}],
        "CB.jsonl": [{"idx": 0, "label": "neutral"}],
        "ReCoRD.jsonl": [{"idx": 7, "label": "Paris"}],
    }


def test_wsc_has_whether_the_noun_is_the_one_of_the_example():
    nouns = [(1, "the cats", "The cat"), (0, "Tom's dog", "Tom"), (2, "dog", "the big dog")]
    found = submission_files(
        {
            "super_glue_wsc_v102_simple_eval": [
                {"index": place, "idx": number, "prediction": text, "target": noun}
                for place, (number, text, noun) in enumerate(nouns)
            ]
        }
    )
    text = files_of(found["SuperGLUE.zip"])["WSC.jsonl"]
    assert [json.loads(line) for line in text.splitlines()] == [
        {"idx": 0, "label": "False"},
        {"idx": 1, "label": "False"},
        {"idx": 2, "label": "True"},
    ]


def test_multirc_is_nested():
    def row(paragraph, question, answer, text):
        idx = {"paragraph": paragraph, "question": question, "answer": answer}
        return {"index": 0, "idx": idx, "prediction": text}

    found = submission_files(
        {
            "super_glue_multirc_v102": [
                row(0, 1, 3, "True"),
                row(0, 0, 0, "False"),
                row(0, 0, 1, "True"),
                row(2, 5, 9, "False"),
            ]
        }
    )
    text = files_of(found["SuperGLUE.zip"])["MultiRC.jsonl"]
    assert [json.loads(line) for line in text.splitlines()] == [
        {
            "idx": 0,
            "passage": {
                "questions": [
                    {"idx": 0, "answers": [{"idx": 0, "label": 0}, {"idx": 1, "label": 1}]},
                    {"idx": 1, "answers": [{"idx": 3, "label": 1}]},
                ]
            },
        },
        {"idx": 2, "passage": {"questions": [{"idx": 5, "answers": [{"idx": 9, "label": 0}]}]}},
    ]


def test_equal_predictions_give_equal_bytes():
    given = {"glue_rte_v002": rows((0, "entailment"))}
    assert submission_files(given) == submission_files(given)


def test_what_a_submission_lacks():
    lacking = missing_files({"glue_rte_v002": [], "super_glue_cb_v102": []})
    assert "SST-2" in lacking["GLUE.zip"]
    assert "RTE" not in lacking["GLUE.zip"]
    assert "WSC" in lacking["SuperGLUE.zip"]
    assert "WSC" not in missing_files({"super_glue_wsc_v102_simple_eval": []})["SuperGLUE.zip"]
    assert missing_files({"my_task": []}) == {}


def test_an_example_without_its_number_is_refused():
    with pytest.raises(UserError, match="prediction 0 of glue_rte_v002 has no idx"):
        submission_files({"glue_rte_v002": [{"index": 0, "idx": None, "prediction": "x"}]})


@pytest.mark.parametrize("task", [task for task, (_, labels) in submission._GLUE.items() if labels])
def test_every_class_has_its_number_in_tfds(task):
    """GLUE's numbers of the classes are those of TFDS."""
    name = task.removeprefix("glue_").removesuffix("_v002")
    labels = DATASETS[f"glue/{name}"].labels
    assert submission._GLUE[task][1] == {label: str(i) for i, label in enumerate(labels)}
