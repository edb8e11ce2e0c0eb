"""Log-likelihoods of answers against logits in float64, whatever else is in the batch."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from tiers import slow

from moe_jax.evaluation import rank_classification
from moe_jax.evaluation.rank_classification import Answer, LikelihoodScorer, make_answer_batch
from moe_jax.models.batch_context import BatchContext
from moe_jax.models.functional import LanguageModel
from moe_jax.routers.expert_choice import ExpertChoice
from moe_jax.routing.pools import Pool
from moe_jax.sharding.mesh import MeshConfig
from moe_jax.sharding.partition import make_partition

LENGTH = 32
ROUTER = ExpertChoice(1.0, Pool("batch"))


def draw(count, seed=0, longest=26):
    """Returns inputs of up to `longest` tokens, less one, with answers of 1 to 6 tokens."""
    draws = np.random.default_rng(seed)

    def tokens(length):
        return tuple(draws.integers(1, 64, length).tolist())

    return [
        Answer(tokens(draws.integers(1, longest)), tokens(draws.integers(1, 7)))
        for _ in range(count)
    ]


@pytest.fixture(scope="module")
def made():
    """Returns a model whose thresholds are in the middle of its scores, and its arrays."""
    model, variables = tiny.make(ROUTER, num_layers=2)
    state = {path: jnp.full_like(v, 0.25) for path, v in variables.router_state.items()}
    return model, dataclasses.replace(variables, router_state=state)


def log_likelihood(logits_SV, answer):
    """Returns the sum over the answer's tokens, in float64."""
    total = 0.0
    for place, token in enumerate(answer.targets, len(answer.inputs)):
        row = logits_SV[place]
        largest = row.max()
        total += row[token] - largest - np.log(np.exp(row - largest).sum())
    return total


@pytest.fixture(scope="module")
def expected(made):
    """Returns 20 answers with their log-likelihoods."""
    model, variables = made
    causal = model.causal()

    @jax.jit
    def compute(variables, tokens_BS):
        decoder = causal.bind(variables)
        return decoder.logits(decoder(BatchContext.of_tokens(tokens_BS)).hidden_BSD)

    answers = draw(20)
    inputs_BS = np.zeros((20, LENGTH), np.int32)
    for row, answer in zip(inputs_BS, answers, strict=True):
        tokens = answer.inputs + answer.targets
        row[1 : len(tokens)] = tokens[:-1]
    logits_BSV = np.asarray(compute(variables, inputs_BS), np.float64)
    return answers, [log_likelihood(*both) for both in zip(logits_BSV, answers, strict=True)]


def test_causal_scores_are_those_of_the_logits(made, expected):
    model, variables = made
    answers, wanted = expected
    scorer = LikelihoodScorer(model, batch_size=4, length=LENGTH)
    seen = []
    found = scorer.causal(variables, [*answers, answers[3]], lambda *at: seen.append(at))
    np.testing.assert_allclose(found[:20], wanted, atol=1e-4)
    # Equal answers are computed once, and none is lost.
    assert found[20] == found[3]
    assert seen[-1] == (20, 20)


@pytest.mark.parametrize(
    ("size", "length", "others"), [(1, LENGTH, 0), slow(3, 60, 9), slow(2, 128, 40)]
)
def test_a_causal_score_does_not_depend_on_the_batch(made, expected, size, length, others):
    """With no other row, or with longer ones, in rows of other lengths."""
    model, variables = made
    answers, wanted = expected
    rows = [*draw(others, seed=5, longest=54), *answers[:2][::-1]]
    found = LikelihoodScorer(model, size, length).causal(variables, rows)
    assert found[-1] == pytest.approx(wanted[0], abs=1e-5)
    assert found[-2] == pytest.approx(wanted[1], abs=1e-5)


def test_rows_are_batched_by_length_without_a_loss(made):
    scorer = LikelihoodScorer(made[0], batch_size=2, length=128)
    rows = [Answer((1,) * n, (2,)) for n in (3, 4, 5, 6, 7, 8, 9, 10, 40, 100, 120)]
    batches = list(scorer._batches(rows[::-1]))
    # Eight short rows fill a batch of 2 x 128 tokens; the only one of up to 64 does not.
    assert [(len(chunk), size, length) for chunk, size, length in batches] == [
        (8, 8, 32),
        (2, 2, 128),
        (1, 2, 128),
    ]
    assert [row for chunk, _, _ in batches for row in chunk] == rows


def test_with_training_routing_answers_of_one_example_are_in_different_batches(made, monkeypatch):
    model, variables = made
    scorer = LikelihoodScorer(model, batch_size=2, length=LENGTH)
    one, two, three = (draw(n, seed=n) for n in (3, 1, 2))
    seen = []

    def run(compiled, variables, rows, shape):
        seen.append((rows, shape[:2]))
        return [float(len(row.inputs)) for row in rows]

    monkeypatch.setattr(scorer, "_run", run)
    scores = scorer.trained(variables, [one, two, three])
    batches = [rows for rows, _ in seen]
    assert batches == [[one[0], two[0]], [one[1]], [one[2]], [three[0]], [three[1]]]
    assert {shape for _, shape in seen} == {(2, LENGTH)}
    for own, score in zip((one, two, three), scores, strict=True):
        np.testing.assert_array_equal(score, [len(answer.inputs) for answer in own])


@pytest.mark.slow
def test_training_routing_is_that_of_the_batch(made):
    """With one pool of the batch, scores depend on the neighbours; the loss of training is that."""
    from moe_jax.training.step import LossConfig, forward, token_loss

    model, variables = made
    answers = draw(2, seed=3)
    scorer = LikelihoodScorer(model, batch_size=2, length=LENGTH)
    assert scorer.routings_differ
    found = scorer.trained(variables, [[answers[0]], [answers[1]]])

    @jax.jit
    def loss(variables):
        batch = make_answer_batch(answers, 2, LENGTH)
        output = forward(model, variables, batch)
        return token_loss(model, variables, output, batch, LossConfig())[1]

    assert -float(found[0][0] + found[1][0]) == pytest.approx(float(loss(variables)), rel=1e-5)
    alone = scorer.trained(variables, [[answers[0]]])
    assert abs(alone[0][0] - found[0][0]) > 1e-4


def test_a_batch_is_laid_out_as_in_training():
    """The features of seqio's prefix LM converter, from its documentation."""
    batch = make_answer_batch([Answer((9, 4, 6, 1), (3, 9, 1))], size=2, length=14)
    rows = {
        "targets_BS": [9, 4, 6, 1, 3, 9, 1, 0, 0, 0, 0, 0, 0, 0],
        "inputs_BS": [0, 9, 4, 6, 1, 3, 9, 1, 0, 0, 0, 0, 0, 0],
        "weights_BS": [0, 0, 0, 0, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0],
        "prefix_BS": [1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    }
    for name, row in rows.items():
        np.testing.assert_array_equal(getattr(batch, name), [row, [0] * 14], err_msg=name)


@pytest.mark.slow
@pytest.mark.multidevice
def test_on_a_mesh_scores_are_the_same(made, expected, all_devices):
    model, variables = made
    answers, wanted = expected
    partition = make_partition(MeshConfig(data=2, expert=2, tensor=2), jax.devices())
    sharded = LanguageModel(model.config, ROUTER, partition)
    placed = jax.device_put(variables, sharded.shardings())
    scorer = LikelihoodScorer(sharded, batch_size=4, length=LENGTH)
    np.testing.assert_allclose(scorer.causal(placed, answers), wanted, atol=1e-4)
    # A last batch of one row.
    trained = scorer.trained(placed, [[answer] for answer in answers[:5]])
    single = LikelihoodScorer(model, 4, LENGTH).trained(variables, [[a] for a in answers[:5]])
    np.testing.assert_allclose(np.concatenate(trained), np.concatenate(single), atol=1e-4)


def test_widths_are_few():
    widths = {rank_classification._width([Answer((1,), (1,) * n)]) for n in range(1, 17)}
    assert widths == {1, 2, 4, 8, 16}
