"""Beam search beside all texts of a small vocabulary, and beside a plain search in Python."""

import itertools

import jax
import numpy as np
import pytest
import tiny

from moe_jax.evaluation.generate import Generator
from moe_jax.evaluation.sampling import SamplingConfig
from moe_jax.models.batch_context import BatchContext
from moe_jax.routers.expert_choice import ExpertChoice

VOCAB, END, LIMIT = 5, 2, 4
PROMPTS = [[3, 1], [4, 4, 1, 3, 1], []]


@pytest.fixture(scope="module")
def model():
    shape = {"num_layers": 2, "moe_every": 1, "num_experts": 2, "scan_layers": False}
    return tiny.make(ExpertChoice(1.0), vocab_size=VOCAB, **shape)


@pytest.fixture(scope="module")
def log_p(model):
    """The log probabilities of the next token after every text, by prompt and text."""
    language_model, variables = model
    texts = list(itertools.product(range(VOCAB), repeat=LIMIT - 1))
    found = {}

    @jax.jit
    def run(tokens):
        decoder = language_model.causal().bind(variables)
        logits = decoder.logits(decoder(BatchContext.of_tokens(tokens)).hidden_BSD)
        return jax.nn.log_softmax(logits)

    for index, prompt in enumerate(PROMPTS):
        rows = np.array([[0, *prompt, *text] for text in texts], np.int32)
        rows = np.pad(rows, ((0, 0), (0, 9 - rows.shape[1])))
        values = np.asarray(run(rows))
        for text, row in zip(texts, values, strict=True):
            for n in range(LIMIT):
                found[index, text[:n]] = row[len(prompt) + n]
    return found


def penalty(count, alpha):
    return ((5 + count) / 6) ** alpha


def search(log_p, beams, alpha):
    """A plain beam search: (score, text without its end) of the best texts."""
    open_texts, ended = [(0.0, ())], []
    for count in range(1, LIMIT + 1):
        more = [
            (p + log_p[text][token], (*text, token))
            for p, text in open_texts
            for token in range(VOCAB)
        ]
        best = sorted(more, reverse=True)[: 2 * beams]
        ended += [(p / penalty(count, alpha), t[:-1]) for p, t in best if t[-1] == END]
        ended = sorted(ended, reverse=True)[:beams]
        open_texts = [(p, t) for p, t in best if t[-1] != END][:beams]
    cut = [(p / penalty(LIMIT, alpha), t) for p, t in open_texts]
    return sorted(ended + cut, reverse=True)[:beams]


def found_texts(model, beams, alpha, prompts=PROMPTS):
    config = SamplingConfig(
        max_new_tokens=LIMIT, temperature=0.0, beams=beams, length_penalty=alpha
    )
    return Generator(model[0], config, END).beams(model[1], prompts)


@pytest.mark.parametrize(
    ("beams", "alpha"), [(3, 0.6), pytest.param(2, 2.0, marks=pytest.mark.slow)]
)
def test_beams_are_those_of_a_plain_search(model, log_p, beams, alpha):
    for index, texts in enumerate(found_texts(model, beams, alpha)):
        own = {text: values for (prompt, text), values in log_p.items() if prompt == index}
        expected = search(own, beams, alpha)
        assert [tuple(text.tokens) for text in texts] == [text for _, text in expected]
        scores = [score for score, _ in expected]
        np.testing.assert_allclose([text.score for text in texts], scores, rtol=1e-4)
        assert [text.ended for text in texts] == [len(t) < LIMIT for _, t in expected]


@pytest.mark.slow
def test_many_beams_find_the_best_of_all_texts(model, log_p):
    """With more beams than open texts nothing is left out."""
    beams, alpha = 5**3, 0.6
    own = {text: values for (prompt, text), values in log_p.items() if prompt == 0}
    texts = {}
    for whole in itertools.product(range(VOCAB), repeat=LIMIT):
        count = whole.index(END) + 1 if END in whole else LIMIT
        p = sum(own[whole[:n]][whole[n]] for n in range(count))
        texts[whole[:count]] = p / penalty(count, alpha)
    best = sorted(texts, key=texts.get, reverse=True)[:20]
    (found, *_) = found_texts(model, beams, alpha)
    np.testing.assert_allclose([t.score for t in found[:20]], [texts[t] for t in best], rtol=1e-4)
    assert tuple(found[0].tokens) == tuple(token for token in best[0] if token != END)


@pytest.mark.slow
def test_a_rows_beams_are_the_same_alone(model):
    together = found_texts(model, 3, 0.6)
    alone = [found_texts(model, 3, 0.6, [prompt])[0] for prompt in PROMPTS]
    tokens = [[[text.tokens for text in row] for row in rows] for rows in (together, alone)]
    assert tokens[0] == tokens[1]
