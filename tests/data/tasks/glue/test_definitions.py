"""The definitions beside TensorFlow Datasets' description of the data, and in use by seqio."""

import json
from pathlib import Path

import pytest
import seqio
import tensorflow as tf
from tensorflow_datasets.text.glue import Glue
from tensorflow_datasets.text.super_glue import SuperGlue

from moe_jax.data.tasks.glue import DEFINITIONS, EXPERT_CHOICE_TASKS
from moe_jax.data.tasks.glue.definitions import FORMATS
from moe_jax.data.tasks.registry import load_vocabulary

GOLDEN = json.loads((Path(__file__).parent / "golden.json").read_text(encoding="utf-8"))
CONFIGS = {"glue": Glue.builder_configs, "super_glue": SuperGlue.builder_configs}
OF_CONFIGS = sorted(name for name in DEFINITIONS if name != "dpr_v001_simple")
LABELLED = sorted(GOLDEN["label_numbers"])


def metric_names(task):
    return [metric.__name__ for metric in DEFINITIONS[task].metric_fns]


@pytest.mark.parametrize("task", OF_CONFIGS)
def test_fields_and_versions_are_those_of_tfds(task):
    source, version = DEFINITIONS[task].source.split(":")
    suite, config = source.split("/")
    assert str(CONFIGS[suite][config].version) == version
    known = CONFIGS[suite][config]
    fields = known.text_features if suite == "glue" else known.features
    assert set(FORMATS[task].features) - {"label", "span2_index"} <= set(fields)


@pytest.mark.parametrize("task", LABELLED)
def test_labels_are_those_of_tfds(task):
    suite, config = DEFINITIONS[task].source.split(":")[0].split("/")
    labels = CONFIGS[suite][config].label_classes
    postprocess = DEFINITIONS[task].postprocessor
    assert [postprocess(label) for label in labels] == list(range(len(labels)))
    # A leading space and EOS, at a token for every byte.
    assert max(len(label) for label in labels) + 2 <= DEFINITIONS[task].targets_length


def test_splits():
    assert DEFINITIONS["glue_sst2_v002"].splits == {s: s for s in ("train", "validation", "test")}
    mnli = DEFINITIONS["glue_mnli_v002"].splits
    assert mnli["validation"] == mnli["validation_matched"] == "validation_matched"
    assert mnli["test_mismatched"] == "test_mismatched"
    assert list(DEFINITIONS["glue_mnli_matched_v002"].splits) == ["validation", "test"]
    for name in ("glue_ax_v002", "super_glue_axb_v102", "super_glue_axg_v102"):
        assert DEFINITIONS[name].splits == {"test": "test"}
    assert list(DEFINITIONS["super_glue_wsc_v102_simple_train"].splits) == ["train"]
    assert list(DEFINITIONS["super_glue_wsc_v102_simple_eval"].splits) == ["validation", "test"]
    assert list(DEFINITIONS["glue_wnli_v002_simple_eval"].splits) == ["validation", "test"]
    assert list(DEFINITIONS["dpr_v001_simple"].splits) == ["train", "test"]


def test_metrics():
    assert metric_names("glue_cola_v002")[0] == "matthews"
    assert metric_names("glue_mrpc_v002")[:2] == ["f1_invalid_as_wrong", "accuracy"]
    assert metric_names("glue_qqp_v002")[:2] == ["f1_invalid_as_wrong", "accuracy"]
    assert metric_names("glue_stsb_v002")[:2] == ["pearson", "spearman"]
    multirc = metric_names("super_glue_multirc_v102")[:2]
    assert multirc == ["multirc_f1_over_all_answers", "multirc_exact_match"]
    assert metric_names("super_glue_axb_v102")[0] == "matthews"
    for name in EXPERT_CHOICE_TASKS:
        assert "accuracy" in metric_names(name)
    for name in DEFINITIONS:
        unmeasured = name in ("glue_ax_v002", "super_glue_wsc_v102_simple_train")
        assert metric_names(name)[-1:] == ([] if unmeasured else ["unparsed"])


def test_figures_of_targets_and_of_nonsense():
    cb = DEFINITIONS["super_glue_cb_v102"]
    targets = [cb.postprocessor(text) for text in ("entailment", "neutral", "contradiction")]
    said = [cb.postprocessor(text) for text in ("entailment", "neutral", "Contradiction")]
    figures = {k: v for metric in cb.metric_fns for k, v in metric(targets, said).items()}
    expected = {"mean_3class_f1": 200 / 3, "accuracy": 200 / 3, "unparsed": 100 / 3}
    assert figures == pytest.approx(expected)


def test_a_seqio_task_scores_record():
    """Lists of answers of different lengths go through seqio to the postprocessor."""
    definition = DEFINITIONS["super_glue_record_v102"]
    rows = [golden["row"] for golden in GOLDEN["tasks"]["super_glue_record_v102"][:2]]

    def source(split, shuffle_files, seed=None):
        slices = [tf.data.Dataset.from_tensors(row) for row in rows]
        return slices[0].concatenate(slices[1])

    vocabulary = load_vocabulary("embedded")
    feature = seqio.Feature(vocabulary, add_eos=True)
    task = seqio.Task(
        "record_in_seqio",
        source=seqio.FunctionDataSource(source, splits=["validation"]),
        preprocessors=[
            definition.preprocessor,
            seqio.preprocessors.tokenize,
            seqio.preprocessors.append_eos_after_trim,
        ],
        output_features={"inputs": feature, "targets": feature},
        postprocess_fn=definition.postprocessor,
    )
    length = definition.targets_length
    examples = list(
        task.get_dataset(
            {"inputs": 512, "targets": length}, "validation", shuffle=False
        ).as_numpy_iterator()
    )
    assert len(examples) == 4
    assert vocabulary.decode(examples[0]["targets"].tolist()) == "Ida Holm"
    targets = [
        task.postprocess_fn(
            decoded_model_output=row["targets_pretokenized"].decode(), example=row, is_target=True
        )
        for row in examples
    ]
    assert [target["value"] for target in targets] == [["Ida Holm"]] + [["A", "B, C", "D"]] * 3
    # Of the rows of one query only the first counts.
    said = [{"value": text} for text in ("holm", "b c", "wrong", "wrong")]
    figures = definition.metric_fns[0](targets, said)
    assert figures == pytest.approx({"em": 50.0, "f1": (100 * 2 / 3 + 100) / 2})
