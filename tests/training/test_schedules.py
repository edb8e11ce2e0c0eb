"""Learning-rate schedules against their closed forms."""

import math

import jax
import numpy as np
import pytest

from moe_jax.errors import UserError
from moe_jax.training.schedules import inverse_square_root, warmup_cosine


@pytest.mark.parametrize(
    ("step", "rate"),
    [
        (0, 0.01),
        (1, 0.01),
        (9_999, 0.01),
        (10_000, 0.01),
        (10_001, 10_001**-0.5),
        (40_000, 0.005),
        (1_000_000, 0.001),
    ],
)
def test_inverse_square_root_of_the_paper(step, rate):
    """Constant for the first 10,000 steps, then step^-0.5 (Zhou et al. 2022, 4.1; GLaM's 0.01)."""
    assert float(inverse_square_root()(step)) == pytest.approx(rate, rel=1e-6)


def test_inverse_square_root_scale_and_constant_steps():
    schedule = inverse_square_root(scale=3.0, constant_steps=4)
    rates = [float(schedule(step)) for step in (0, 4, 9, 100)]
    np.testing.assert_allclose(rates, [1.5, 1.5, 1.0, 0.3], rtol=1e-6)


def test_schedules_take_a_traced_integer_step():
    for schedule in (inverse_square_root(), warmup_cosine(1.0, 10, 2)):
        traced = jax.jit(schedule)(np.int32(7))
        assert traced.dtype == np.float32
        np.testing.assert_allclose(traced, schedule(7), rtol=1e-6)


@pytest.mark.parametrize("steps", [0, -1])
def test_inverse_square_root_refuses_no_constant_steps(steps):
    with pytest.raises(UserError, match="constant_steps must be a whole number above 0"):
        inverse_square_root(constant_steps=steps)


def cosine(step, peak, total, warmup, final):
    """Returns the cosine part: from the peak at `warmup` to `final` of it at `total`."""
    progress = (step - warmup) / (total - warmup)
    return peak * (final + (1 - final) * 0.5 * (1 + math.cos(math.pi * progress)))


@pytest.mark.parametrize("warmup", [0, 1, 10])
@pytest.mark.parametrize("final", [0.0, 0.1, 1.0])
def test_warmup_cosine(warmup, final):
    peak, total = 0.02, 50
    schedule = warmup_cosine(peak, total, warmup, final_fraction=final)
    for step in range(warmup, total + 1):
        assert float(schedule(step)) == pytest.approx(
            cosine(step, peak, total, warmup, final), abs=1e-8
        )
    assert float(schedule(warmup)) == pytest.approx(peak)
    assert float(schedule(total)) == pytest.approx(final * peak, abs=1e-8)
    assert float(schedule(total + 100)) == pytest.approx(final * peak, abs=1e-8)


def test_warmup_is_linear_and_does_not_waste_the_first_step():
    """From peak / warmup at step 0 in equal increments to the peak at step `warmup`."""
    rates = [float(warmup_cosine(0.02, 50, 10)(step)) for step in range(11)]
    np.testing.assert_allclose(rates, np.linspace(0.002, 0.02, 11), rtol=1e-5)


@pytest.mark.parametrize(("total", "warmup"), [(10, 10), (10, 11)])
def test_a_warmup_longer_than_the_run_names_both_ways_out(total, warmup):
    message = f"warmup_steps = {warmup} .*total_steps = {total}: train for more steps .* give fewer"
    with pytest.raises(UserError, match=message):
        warmup_cosine(1.0, total, warmup)


@pytest.mark.parametrize(
    ("total", "fraction", "warmup"),
    [(160, 0.0625, 10), (4, 0.0625, 0), (1, 0.99, 0), (100, 0.29, 29), (2000, 0.0625, 125)],
)
def test_a_warmup_can_be_a_share_of_the_steps(total, fraction, warmup):
    """The same function of the step as with so many steps, to the bit."""
    by_share = warmup_cosine(0.02, total, warmup_fraction=fraction)
    by_steps = warmup_cosine(0.02, total, warmup)
    for step in {0, 1, warmup, total // 2, total}:
        assert float(by_share(step)) == float(by_steps(step))
    assert float(warmup_cosine(0.02, total, warmup, warmup_fraction=0.5)(0)) == float(by_steps(0))
