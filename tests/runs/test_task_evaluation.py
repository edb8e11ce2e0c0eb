"""Scores of the package's tasks: likelihoods by hand, metrics by scikit-learn, mixtures."""

import dataclasses

import jax
import numpy as np
import pytest
import task_data
import tiny
from scipy.stats import pearsonr
from sklearn.metrics import accuracy_score, f1_score

from moe_jax import experiments
from moe_jax.config_source import ConfigSource
from moe_jax.data.tasks.vocabulary import load_vocabulary
from moe_jax.errors import UserError
from moe_jax.models.batch_context import BatchContext
from moe_jax.runs.task_evaluation import TaskScorer, has_scores, mean_over_tasks

LENGTH = 128
COUNT = 20
SOURCES = {
    "super_glue_cb_v102": "super_glue/cb",
    "glue_stsb_v002": "glue/stsb",
    "super_glue_multirc_v102": "super_glue/multirc",
    "super_glue_record_v102": "super_glue/record",
}


def many(task):
    """Returns 20 rows of a task that differ in a text."""
    rows = task_data.golden_rows(task)
    # Of ReCoRD's queries those with answers, each with one.
    rows = [row for row in rows if row.get("answers", [0]) and row.get("label", 0) != -1]
    field = next(
        name for name in ("sentence1", "premise", "paragraph", "passage") if name in rows[0]
    )
    made = []
    for number in range(COUNT):
        row = rows[number % len(rows)]
        changed = {**row, field: f"{row[field]} {'so ' * (number % 7)}"}
        if "answers" in row:
            changed |= {"answers": row["answers"][:1], "idx": {"passage": number, "query": 0}}
        made.append(changed)
    return made


@pytest.fixture(autouse=True)
def data(monkeypatch):
    task_data.use_rows(monkeypatch, {source: many(task) for task, source in SOURCES.items()})


@pytest.fixture(scope="module")
def configured(tmp_path_factory):
    """Returns an experiment with an expert choice router, its model and arrays."""
    path = tmp_path_factory.mktemp("scores") / "scores.gin"
    path.write_text(f"{tiny.RUN}\ninclude 'routers/expert_choice.gin'\nSTEPS = 1\n")
    bindings = (
        f"Data.sequence_length={LENGTH}",
        "Model.num_layers=2",
        "Model.num_experts=4",
        "Data.task='super_glue_cb'",
    )
    experiment = experiments.load(ConfigSource((str(path),), bindings))
    model = experiment.language_model()
    return experiment, model, model.init(jax.random.key(1))


def of_task(experiment, task, **settings):
    scores = dataclasses.replace(experiment.task_scores, **settings)
    data = dataclasses.replace(experiment.data, task=task)
    return dataclasses.replace(experiment, data=data, task_scores=scores)


def log_likelihoods(model, variables, prompts_and_answers):
    """Yields log-likelihoods in float64, from the logits of every row, causally routed."""

    @jax.jit
    def logits(variables, tokens_BS):
        decoder = model.bind(variables)
        return decoder.logits(decoder(BatchContext.of_tokens(tokens_BS)).hidden_BSD)

    # A few at a time: the logits of all are large.
    for first in range(0, len(prompts_and_answers), 10):
        rows = prompts_and_answers[first : first + 10]
        inputs_BS = np.zeros((10, LENGTH), np.int32)
        for tokens_S, (prompt, answer) in zip(inputs_BS, rows, strict=False):
            tokens = [*prompt, *answer]
            tokens_S[1 : len(tokens)] = tokens[:-1]
        logits_BSV = np.asarray(logits(variables, inputs_BS))
        for logits_SV, (prompt, answer) in zip(logits_BSV, rows, strict=False):
            yield log_likelihood(logits_SV, len(prompt), answer)


def log_likelihood(logits_SV, start, tokens):
    total = 0.0
    for place, token in enumerate(tokens, start):
        row = logits_SV[place].astype(np.float64)
        total += row[token] - row.max() - np.log(np.exp(row - row.max()).sum())
    return total


@pytest.mark.slow
@pytest.mark.parametrize("task", SOURCES)
def test_scores_by_hand(configured, task):
    """20 examples: likelihoods from the logits with numpy, metrics with scikit-learn and SciPy."""
    experiment, model, variables = configured
    (result,) = TaskScorer(of_task(experiment, task), model).evaluate(variables)
    assert len(result.causal.predictions) == COUNT
    assert result.shortened == 0
    vocabulary, rows = load_vocabulary("embedded"), []
    for prediction in result.causal.predictions:
        inputs = prediction.example.features["inputs_pretokenized"].decode()
        prompt = [*vocabulary.encode(inputs), vocabulary.eos_id]
        for text in prediction.class_scores:
            rows.append((prompt, [*vocabulary.encode(text), vocabulary.eos_id]))
    found = log_likelihoods(model.causal(), variables, rows)
    predicted = []
    for prediction in result.causal.predictions:
        own = [next(found) for _ in prediction.class_scores]
        np.testing.assert_allclose(list(prediction.class_scores.values()), own, atol=1e-4)
        # One of ReCoRD's queries has no entities.
        names = list(prediction.class_scores)
        predicted.append(names[int(np.argmax(own))] if names else "")
    check_metrics(task, result, predicted)


def check_metrics(task, result, predicted):
    rows, metrics = many(task), result.causal.metrics
    if task.startswith("super_glue_cb"):
        labels = [row["label"] for row in rows]
        said = [("entailment", "contradiction", "neutral").index(text) for text in predicted]
        f1 = f1_score(labels, said, labels=[0, 1, 2], average="macro", zero_division=0.0)
        assert metrics["accuracy"] == pytest.approx(100 * accuracy_score(labels, said))
        assert metrics["mean_3class_f1"] == pytest.approx(100 * f1)
        assert result.causal.score == pytest.approx(50 * (accuracy_score(labels, said) + f1))
    elif task.startswith("glue_stsb"):
        labels = [np.round(row["label"] * 5) / 5 for row in rows]
        said = [float(text) for text in predicted]
        expected = 100 * pearsonr(labels, said)[0] if len(set(said)) > 1 else 0.0
        assert metrics["pearson_corrcoef"] == pytest.approx(expected, abs=1e-3)
    elif task.startswith("super_glue_multirc"):
        labels = [row["label"] for row in rows]
        said = [("False", "True").index(text) for text in predicted]
        assert metrics["f1"] == pytest.approx(100 * f1_score(labels, said, zero_division=0.0))
        questions = {}
        for row, own in zip(rows, said, strict=True):
            right = own == row["label"]
            number = row["idx"]["question"]
            questions[number] = questions.get(number, True) and right
        assert metrics["exact_match"] == pytest.approx(100 * np.mean(list(questions.values())))
    else:
        right = [own == row["answers"][0] for own, row in zip(predicted, rows, strict=True)]
        assert metrics["em"] == pytest.approx(100 * np.mean(right))


def test_figures_of_training_have_both_routings(configured):
    experiment, model, variables = configured
    scorer = TaskScorer(of_task(experiment, "super_glue_cb"), model, examples=9)
    assert [len(task.examples) for task in scorer.tasks] == [9]
    figures = scorer(variables)
    (result,) = scorer.evaluate(variables)
    names = ("mean_3class_f1", "accuracy", "unparsed")
    assert figures == {
        **{f"task/{name}": result.trained.metrics[name] for name in names},
        **{f"task/causal/{name}": result.causal.metrics[name] for name in names},
        "task/score": result.trained.score,
        "task/causal/score": result.causal.score,
    }


def test_a_mixture_is_scored_by_task_and_what_cannot_be_is_noted(configured, monkeypatch):
    experiment, model, _ = configured
    mixture = {"super_glue_cb": 1.0, "super_glue_wsc_simple_train": 1.0}
    rows = {
        "super_glue/cb": many("super_glue_cb_v102"),
        "super_glue/wsc.fixed": task_data.golden_rows("super_glue_wsc_v102_simple_train"),
    }
    task_data.use_rows(monkeypatch, rows)
    scorer = TaskScorer(of_task(experiment, mixture), model, examples=4)
    assert [task.name for task in scorer.tasks] == ["super_glue_cb"]
    (note,) = scorer.notes
    assert note.startswith("not scored: task super_glue_wsc_simple_train has neither metrics")


@pytest.mark.slow
def test_the_mean_over_the_tasks_of_a_mixture(configured):
    experiment, model, variables = configured
    mixture = {"super_glue_cb": 1.0, "super_glue_multirc": 1.0}
    scorer = TaskScorer(of_task(experiment, mixture), model, examples=4)
    figures, results = scorer(variables), scorer.evaluate(variables)
    trained = [result.trained.score for result in results]
    assert figures["task/score"] == pytest.approx(np.mean(trained))
    assert figures["task/super_glue_cb/score"] == trained[0]
    assert figures["task/causal/super_glue_multirc/f1"] == results[1].causal.metrics["f1"]
    causal = [result.causal for result in results]
    assert figures["task/causal/score"] == pytest.approx(mean_over_tasks(causal))


def test_what_cannot_be_scored_is_refused_in_one_line(configured):
    experiment, model, _ = configured
    with pytest.raises(UserError, match="task super_glue_cb has no split 'test'"):
        TaskScorer(of_task(experiment, "super_glue_cb", split="test"), model)
    short = of_task(experiment, "super_glue_cb")
    short = dataclasses.replace(short, data=dataclasses.replace(short.data, sequence_length=4))
    with pytest.raises(UserError, match=r"task super_glue_cb: example 0 is longer than a row: its"):
        TaskScorer(short, model)
    small = of_task(experiment, "super_glue_cb")
    small = dataclasses.replace(small, model=dataclasses.replace(small.model, vocab_size=64))
    with pytest.raises(UserError, match=r"Model\.vocab_size = 64 is smaller than the vocabulary"):
        TaskScorer(small, model)


def test_texts_without_inputs_have_no_scores(configured):
    experiment, *_ = configured
    assert not has_scores(of_task(experiment, "embedded"))
    assert has_scores(of_task(experiment, "super_glue_cb"))
    assert not has_scores(of_task(experiment, "soda"))
