"""Law 1: every transport equals the equation, and the oracle, forward and gradients.

y[p, n] = sum over the experts e that take token n of  w * expert_e(x[p, n]), with experts that
do not map 0 to 0, so that nothing hides in an empty slot. Assignments are made by hand in numpy,
in all layouts; those of the routers are in test_routed.py. One compilation serves all cases of
a shape.
"""

import dataclasses
import functools
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from tiers import mostly_slow

from moe_jax.dispatch import DISPATCHES, get_dispatch
from moe_jax.dispatch.network import ExpertNetwork
from moe_jax.dispatch.segments import segment_sizes
from moe_jax.routing.assignment import Pairs, Slots

HIDDEN = 3


@dataclasses.dataclass(frozen=True)
class Case:
    """P, N, D, E, slots per expert, choices per token, and which expert takes which token."""

    P: int
    N: int
    D: int
    E: int
    C: int
    K: int
    chosen: str

    def chosen_PNE(self) -> np.ndarray:
        chosen = np.zeros((self.P, self.N, self.E), bool)
        rng = np.random.default_rng(5)
        if self.chosen == "random":
            chosen = rng.random(chosen.shape) < 0.4
        elif self.chosen == "some experts empty":
            chosen[..., ::2] = rng.random(chosen[..., ::2].shape) < 0.6
        elif self.chosen == "all to one":
            chosen[..., -1] = True
        elif self.chosen == "every expert takes every token":
            chosen[:] = True
        elif self.chosen == "one token, all experts":
            chosen[-1, -1] = True
        elif self.chosen == "padding":  # Nothing at the end of pool 0, nothing at all in pool 1.
            chosen[0, :3] = rng.random((3, self.E)) < 0.7
        elif self.chosen == "one choice each":
            chosen[:] = rng.integers(self.E, size=chosen.shape[:2])[..., None] == np.arange(self.E)
        elif self.chosen == "most":
            chosen = rng.random(chosen.shape) < 0.7
        elif self.chosen == "two each, the first ones more often":
            score = rng.random(chosen.shape) / np.arange(1, self.E + 1)
            chosen = score >= np.sort(score, axis=-1)[..., -2:-1]
        elif self.chosen == "one slot each":
            for p, e in np.ndindex(self.P, self.E):
                chosen[p, rng.integers(self.N), e] = True
        else:
            assert self.chosen == "nothing"
        return chosen


SHARED = (2, 7, 5, 4, 7, 4)
CASES = [
    Case(*SHARED, "random"),
    Case(*SHARED, "some experts empty"),
    Case(*SHARED, "all to one"),
    Case(*SHARED, "every expert takes every token"),
    Case(*SHARED, "one token, all experts"),
    Case(*SHARED, "padding"),
    Case(*SHARED, "nothing"),
    Case(2, 7, 5, 1, 7, 1, "random"),  # One expert.
    Case(3, 5, 2, 3, 5, 1, "one choice each"),
    Case(3, 5, 2, 3, 1, 3, "one slot each"),
    Case(1, 3, 1, 8, 2, 8, "one slot each"),  # More experts than tokens, width 1.
    Case(1, 1, 3, 4, 1, 4, "one token, all experts"),  # There is only one token.
    Case(1, 67, 3, 8, 67, 1, "all to one"),  # Three segments for one expert.
    Case(1, 67, 3, 8, 67, 1, "one choice each"),
    Case(2, 33, 3, 5, 33, 2, "two each, the first ones more often"),
    Case(2, 9, 3, 9, 9, 9, "every expert takes every token"),  # Three turns.
    Case(2, 9, 3, 9, 9, 9, "most"),  # Two of three turns.
    Case(2, 9, 3, 9, 9, 9, "nothing"),
]
# Of one shape, so of one program for each transport and layout, and one expert alone.
BOTH_TIERS = mostly_slow(CASES, [c for c in CASES if c.E in (1, 4) and c.N == 7])


def test_cases_are_what_they_are_for():
    """One expert's rows take several segments; many choices take several turns."""
    (many,) = (c for c in CASES if c.chosen == "all to one" and c.N == 67)
    assert 2 * segment_sizes(many.N, many.E)[-1] < many.N
    turn = 4 * 2 * 9  # Rows at a time: four per token.
    pairs = {c.chosen: c.chosen_PNE().sum() for c in CASES if c.K == 9}
    assert pairs["every expert takes every token"] > 2 * turn
    assert turn < pairs["most"] < 2 * turn


def numpy_inputs(case):
    rng = np.random.default_rng(1)
    x_PND = rng.normal(size=(case.P, case.N, case.D)).astype(np.float32)
    weight_PNE = rng.normal(size=(case.P, case.N, case.E)).astype(np.float32)
    params = {
        name: rng.normal(size=(case.E, case.D, HIDDEN)).astype(np.float32) for name in ("wi", "wo")
    }
    cotangent_PND = rng.normal(size=x_PND.shape).astype(np.float32)
    return x_PND, weight_PNE, params, cotangent_PND


def activation(x, xp=jnp):
    """Elementwise, and not 0 at 0."""
    return xp.tanh(x + 0.7)


def numpy_expert(params):
    wi, wo = (params[name].astype(np.float64) for name in ("wi", "wo"))
    return lambda e, x_D: activation(x_D @ wi[e], np) @ wo[e].T


def network(params):
    return ExpertNetwork(params["wi"], params["wo"], activation)


def make_slots(case, chosen_PNE, weight_PNE):
    """Slots in a random order of tokens, empty ones last, at index 0 with weight 0."""
    rng = np.random.default_rng(2)
    index = np.zeros((case.P, case.E, case.C), np.int32)
    weight, filled = np.zeros(index.shape, np.float32), np.zeros(index.shape, bool)
    for p, e in np.ndindex(case.P, case.E):
        tokens = rng.permutation(np.flatnonzero(chosen_PNE[p, :, e]))
        index[p, e, : len(tokens)], filled[p, e, : len(tokens)] = tokens, True
        weight[p, e, : len(tokens)] = weight_PNE[p, tokens, e]
    return Slots(*map(jnp.asarray, (index, weight, filled)))


def make_pairs(case, chosen_PNE, weight_PNE):
    """Pairs in a random order of choices; one that is not made names any expert, weight 0."""
    rng = np.random.default_rng(3)
    index = rng.integers(case.E, size=(case.P, case.N, case.K)).astype(np.int32)
    weight, chosen = np.zeros(index.shape, np.float32), np.zeros(index.shape, bool)
    for p, n in np.ndindex(case.P, case.N):
        experts = np.flatnonzero(chosen_PNE[p, n])
        places = rng.permutation(case.K)[: len(experts)]
        index[p, n, places], chosen[p, n, places] = experts, True
        weight[p, n, places] = weight_PNE[p, n, experts]
    return Pairs(*map(jnp.asarray, (index, weight, chosen)), case.E)


def make_limited_pairs(case, chosen_PNE, weight_PNE):
    """Pairs with slots: each expert's tokens in a random order, with gaps if there is room."""
    rng = np.random.default_rng(6)
    pairs = make_pairs(case, chosen_PNE, weight_PNE)
    slot = rng.integers(100, size=pairs.chosen_PNK.shape)  # Of a choice not made: anything.
    for p, e in np.ndindex(case.P, case.E):
        of_expert = np.asarray(pairs.chosen_PNK[p] & (pairs.expert_index_PNK[p] == e))
        slot[p][of_expert] = rng.permutation(case.C)[: of_expert.sum()]
    return dataclasses.replace(pairs, slot_PNK=jnp.asarray(slot, jnp.int32), capacity=case.C)


LAYOUTS = {"slots": make_slots, "pairs": make_pairs, "limited pairs": make_limited_pairs}


@functools.partial(jax.jit, static_argnames="name")
def forward_and_gradients(name, assignment, x_PND, params, cotangent_PND):
    """Returns y and the gradients of <cotangent, y> for every input that is trained."""
    is_slots = isinstance(assignment, Slots)
    field = "weight_PEC" if is_slots else "weight_PNK"
    used = assignment.filled_PEC if is_slots else assignment.chosen_PNK

    def run(weight, x_PND, params):
        # As in a router, an empty slot's weight is the constant 0.
        routed = dataclasses.replace(assignment, **{field: jnp.where(used, weight, 0.0)})
        return get_dispatch(name)(routed, x_PND, network(params))

    y_PND, vjp = jax.vjp(run, getattr(assignment, field), x_PND, params)
    weight, x, params = vjp(cotangent_PND)
    return y_PND, {"weight": weight, "x": x, **params}


@functools.cache
def result(name, layout, case):
    x_PND, weight_PNE, params, cotangent_PND = numpy_inputs(case)
    assignment = LAYOUTS[layout](case, case.chosen_PNE(), weight_PNE)
    y, gradients = forward_and_gradients(name, assignment, x_PND, params, cotangent_PND)
    return assignment, y, gradients


def assert_close(actual, expected, label=""):
    scale = max(np.abs(np.asarray(expected)).max(), 1e-3)
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=2e-6 * scale, err_msg=label)


@pytest.mark.parametrize("case", BOTH_TIERS, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", sorted(DISPATCHES))
def test_forward_equals_the_equation(name, layout, case):
    assignment, y_PND, _ = result(name, layout, case)
    x_PND, weight_PNE, params, _ = numpy_inputs(case)
    chosen = case.chosen_PNE()
    np.testing.assert_array_equal(oracles.assignment_table(assignment, case.N)[0], chosen)
    expected = oracles.moe_layer(chosen, weight_PNE, x_PND, numpy_expert(params))
    assert_close(y_PND, expected)
    unrouted = ~chosen.any(-1)
    assert not np.asarray(y_PND)[unrouted].any()  # Exactly 0: the residual only.


@pytest.mark.parametrize("case", BOTH_TIERS, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", sorted(set(DISPATCHES) - {"oracle"}))
def test_gradients_equal_the_oracles(name, layout, case):
    expected = result("oracle", layout, case)[2]
    actual = result(name, layout, case)[2]
    assert actual.keys() == expected.keys()
    for key in expected:
        assert_close(actual[key], expected[key], key)


@pytest.mark.parametrize("wanted", ["x", "wi", "wo"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", sorted(DISPATCHES))
def test_gradients_equal_differences_of_the_equation(name, layout, wanted):
    """Float64 differences of the numpy oracle, entry by entry."""
    case = CASES[0]
    x_PND, weight_PNE, params, cotangent_PND = numpy_inputs(case)
    inputs = {key: value.astype(np.float64) for key, value in {"x": x_PND, **params}.items()}

    def loss(shift, entry):
        moved = {key: value.copy() for key, value in inputs.items()}
        moved[wanted][entry] += shift
        y = oracles.moe_layer(case.chosen_PNE(), weight_PNE, moved["x"], numpy_expert(moved))
        return (cotangent_PND * y).sum()

    actual = np.asarray(result(name, layout, case)[2][wanted])
    for entry in list(np.ndindex(actual.shape))[::3]:
        expected = (loss(1e-5, entry) - loss(-1e-5, entry)) / 2e-5
        np.testing.assert_allclose(actual[entry], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", sorted(DISPATCHES))
def test_weight_gradient_is_the_experts_output(name, layout):
    """d<c, y> / d w[p, n, e] = <c[p, n], expert_e(x[p, n])>."""
    case = CASES[0]
    x_PND, _, params, cotangent_PND = numpy_inputs(case)
    assignment, _, gradients = result(name, layout, case)
    field = "weight_PEC" if layout == "slots" else "weight_PNK"
    table = dataclasses.replace(assignment, **{field: gradients["weight"]})
    count, actual = oracles.assignment_table(table, case.N)
    expected, expert = np.zeros(actual.shape), numpy_expert(params)
    for p, n, e in zip(*np.nonzero(count), strict=True):
        expected[p, n, e] = cotangent_PND[p, n] @ expert(e, x_PND[p, n])
    assert_close(actual, expected)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", sorted(DISPATCHES))
def test_the_weight_of_what_is_not_carried_has_no_gradient(name, layout):
    """Whoever makes the assignment: empty slots and choices not made cannot ask for weight."""
    case = CASES[5]
    x_PND, weight_PNE, params, _ = numpy_inputs(case)
    assignment = LAYOUTS[layout](case, case.chosen_PNE(), weight_PNE)
    is_slots = layout == "slots"
    field = "weight_PEC" if is_slots else "weight_PNK"
    used = np.asarray(assignment.filled_PEC if is_slots else assignment.chosen_PNK)

    @jax.jit
    @jax.grad
    def gradient(weight):
        routed = dataclasses.replace(assignment, **{field: weight})
        return get_dispatch(name)(routed, jnp.asarray(x_PND), network(params)).sum()

    actual = np.asarray(gradient(getattr(assignment, field)))
    assert actual[used].all()
    assert not actual[~used].any()


@pytest.mark.parametrize("case", mostly_slow([CASES[0], CASES[-4]]), ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ["gather", "grouped"])
def test_bfloat16_is_close_to_float32(name, layout, case):
    """Forward and gradients, from the same rounded inputs; bfloat16 has steps of 1 / 256."""
    x_PND, weight_PNE, params, cotangent_PND = numpy_inputs(case)
    assignment = LAYOUTS[layout](case, case.chosen_PNE(), weight_PNE)
    half = jax.tree.map(lambda a: jnp.asarray(a, jnp.bfloat16), (x_PND, params, cotangent_PND))
    full = jax.tree.map(lambda a: a.astype(jnp.float32), half)
    y, gradients = forward_and_gradients(name, assignment, *half)
    expected_y, expected = forward_and_gradients("oracle", assignment, *full)
    assert gradients["weight"].dtype == jnp.float32
    for key, value in {"y": expected_y, **expected}.items():
        actual = {"y": y, **gradients}[key]
        assert key == "weight" or actual.dtype == jnp.bfloat16
        error = np.abs(np.asarray(actual, np.float32) - value).max() / np.abs(value).max()
        assert error < 8 / 256, key


def largest_array(name, layout):
    """Returns the elements of the largest array in the program of a forward and backward pass."""
    case = Case(1, 64, 4, 8, 16, 2, "one slot each")
    x_PND, weight_PNE, params, cotangent_PND = numpy_inputs(case)
    assignment = LAYOUTS[layout](case, case.chosen_PNE(), weight_PNE)
    program = forward_and_gradients.lower(name, assignment, x_PND, params, cotangent_PND).as_text()
    shapes = re.findall(r"tensor<((?:\d+x)+)[a-z]", program)
    return max(math.prod(map(int, shape.split("x")[:-1])) for shape in shapes)


@pytest.mark.parametrize("layout", ["slots", "limited pairs"])
def test_no_array_of_tokens_times_experts_times_capacity(layout):
    """The oracle has one-hot arrays of 64 x 8 x 16 (or all experts on all tokens) elements."""
    if layout == "slots":
        assert largest_array("oracle", layout) >= 64 * 8 * 16
    for name in ("gather", "grouped"):
        assert largest_array(name, layout) <= 64 * 8 * 4


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ["gather", "grouped"])
def test_what_overflows_for_one_token_stays_with_it(name, layout):
    """Whether or not an expert takes it: rows of others, and empty slots, are not touched."""
    case = Case(*SHARED, "padding")
    x_PND, weight_PNE, params, _ = numpy_inputs(case)
    params = {"wi": params["wi"], "wo": 100 * params["wo"]}
    chosen = case.chosen_PNE()
    assignment = LAYOUTS[layout](case, chosen, weight_PNE)
    for n in (0, 5):  # Taken by some, taken by none.
        assert chosen[0, n].any() == (n == 0)
        # Linear experts, so that the overflow reaches the output.
        experts = ExpertNetwork(*(jnp.asarray(params[key]) for key in ("wi", "wo")), jnp.positive)
        calm = get_dispatch(name)(assignment, jnp.asarray(x_PND), experts)
        x = jnp.asarray(x_PND).at[0, n].set(3e38)
        y = np.asarray(get_dispatch(name)(assignment, x, experts))
        others = np.ones(chosen.shape[:2], bool)
        others[0, n] = False
        assert np.isfinite(y[others]).all()
        assert_close(y[others], np.asarray(calm)[others])
        if n == 0:
            assert not np.isfinite(y[0, 0]).all()
