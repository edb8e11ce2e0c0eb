"""Law 1: every transport equals the equation, and the oracle, forward and gradients.

y[p, n] = sum over the experts e that take token n of  w * expert_e(x[p, n]), with experts that
do not map 0 to 0, so that nothing hides in an empty slot. Assignments are made by hand in numpy,
in both layouts; those of the routers are in test_routed.py. One compilation serves all cases of
a shape.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest

from moe_jax.dispatch import DISPATCHES, get_dispatch
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
]


def numpy_inputs(case):
    rng = np.random.default_rng(1)
    x_PND = rng.normal(size=(case.P, case.N, case.D)).astype(np.float32)
    weight_PNE = rng.normal(size=(case.P, case.N, case.E)).astype(np.float32)
    params = {
        "w1": rng.normal(size=(case.E, case.D, HIDDEN)).astype(np.float32),
        "b1": rng.normal(size=(case.E, HIDDEN)).astype(np.float32),
        "w2": rng.normal(size=(case.E, HIDDEN, case.D)).astype(np.float32),
    }
    cotangent_PND = rng.normal(size=x_PND.shape).astype(np.float32)
    return x_PND, weight_PNE, params, cotangent_PND


def numpy_expert(params):
    w1, b1, w2 = (params[name].astype(np.float64) for name in ("w1", "b1", "w2"))
    return lambda e, x_D: np.tanh(x_D @ w1[e] + b1[e]) @ w2[e]


def jax_experts(params, x_ERD):
    hidden = jnp.tanh(jnp.einsum("erd,edf->erf", x_ERD, params["w1"]) + params["b1"][:, None])
    return jnp.einsum("erf,efd->erd", hidden, params["w2"])


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


LAYOUTS = {"slots": make_slots, "pairs": make_pairs}


@functools.partial(jax.jit, static_argnames="name")
def forward_and_gradients(name, assignment, x_PND, params, cotangent_PND):
    """Returns y and the gradients of <cotangent, y> for every input that is trained."""
    is_slots = isinstance(assignment, Slots)
    field = "weight_PEC" if is_slots else "weight_PNK"
    used = assignment.filled_PEC if is_slots else assignment.chosen_PNK

    def run(weight, x_PND, params):
        # As in a router, an empty slot's weight is the constant 0.
        routed = dataclasses.replace(assignment, **{field: jnp.where(used, weight, 0.0)})
        return get_dispatch(name)(routed, x_PND, functools.partial(jax_experts, params))

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


@pytest.mark.parametrize("case", CASES, ids=str)
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


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", sorted(set(DISPATCHES) - {"oracle"}))
def test_gradients_equal_the_oracles(name, layout, case):
    expected = result("oracle", layout, case)[2]
    actual = result(name, layout, case)[2]
    assert actual.keys() == expected.keys()
    for key in expected:
        assert_close(actual[key], expected[key], key)


@pytest.mark.parametrize("wanted", ["x", "w1", "b1", "w2"])
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
        expert_fn = functools.partial(jax_experts, params)
        return get_dispatch(name)(routed, jnp.asarray(x_PND), expert_fn).sum()

    actual = np.asarray(gradient(getattr(assignment, field)))
    assert actual[used].all()
    assert not actual[~used].any()
