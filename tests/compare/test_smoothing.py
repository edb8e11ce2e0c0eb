import dataclasses

import numpy as np
import pytest
from synthetic_studies import Law

from moe_jax.compare.smoothing import smooth

STEPS = np.arange(50, 1001, 50)


def test_a_falling_parabola_in_the_logarithm_is_left_as_it_is():
    x = np.log(STEPS)
    y = 9 - 1.2 * x + 0.05 * x**2
    curve = smooth(STEPS, y)
    np.testing.assert_allclose(curve.loss, y, rtol=1e-9)
    assert curve.noise < 1e-9
    assert curve.rise == 0


def test_local_regression_against_numpys_weighted_fit():
    rng = np.random.default_rng(0)
    x, y = np.log(STEPS), 5 - 0.5 * np.log(STEPS) + 0.001 * rng.standard_normal(len(STEPS))
    index = 12
    distance = np.abs(x - x[index])
    width = 1.05 * np.sort(distance)[6]  # The 7 nearest of 20.
    weight = np.where(distance < width, (1 - (distance / width) ** 3), 0) ** 3
    inside = weight > 0
    fit = np.polyfit(x[inside] - x[index], y[inside], 2, w=np.sqrt(weight[inside]))
    assert smooth(STEPS, y).loss[index] == pytest.approx(fit[-1], abs=1e-9)


def test_step_of_a_loss_is_that_of_the_law():
    law = Law()
    curve = smooth(STEPS, law.loss(STEPS, 1000))
    for step in (120, 333, 700, 950):
        loss = float(law.loss(step, 1000))
        assert curve.step_at(loss) == pytest.approx(step, rel=0.01)
        assert curve.loss_at(np.array([step]))[0] == pytest.approx(loss, abs=0.005)


def test_a_loss_that_is_not_reached():
    curve = smooth(STEPS, Law().loss(STEPS, 1000))
    assert curve.step_at(curve.final - 1e-9) is None
    assert curve.step_at(float("nan")) is None
    assert curve.step_at(curve.final) == pytest.approx(1000)
    assert curve.step_at(99.0) == pytest.approx(50)
    assert curve.is_censored(99.0)
    assert not curve.is_censored(curve.first)
    assert not curve.is_censored(curve.final)


def test_noise_becomes_smaller_and_the_curve_never_rises():
    rng = np.random.default_rng(0)
    clean = Law().loss(STEPS, 1000)
    curves = [smooth(STEPS, clean + 0.05 * rng.standard_normal(len(STEPS))) for _ in range(50)]
    assert all((np.diff(curve.loss) <= 0).all() for curve in curves)
    assert np.std([curve.loss - clean for curve in curves]) < 0.04


def test_a_level_stretch_is_reached_at_its_middle():
    curve = dataclasses.replace(
        smooth([1, 2], [3.0, 2.0]), log_steps=np.arange(4.0), loss=np.array([3.0, 2.0, 2.0, 1.0])
    )
    curve = dataclasses.replace(curve, final=1.0)
    assert curve.step_at(2.0) == pytest.approx(np.exp(1.5))
    assert curve.step_at(1.0) == pytest.approx(np.exp(3.0))


def test_the_final_loss_is_unbiased():
    """Isotonic regression alone ends too low."""
    rng = np.random.default_rng(0)
    clean = Law().loss(STEPS, 1000)
    curves = [smooth(STEPS, clean + 0.05 * rng.standard_normal(20)) for _ in range(400)]
    error = np.array([curve.final - clean[-1] for curve in curves])
    assert abs(error.mean()) < 3 * error.std() / 20
    assert np.mean([curve.loss[-1] for curve in curves]) < clean[-1] - 3 * error.std() / 20


def test_the_final_loss_is_reached_at_the_last_step():
    """Also where noise has raised the end above the losses before it."""
    loss = Law().loss(STEPS, 1000)
    loss[-2:] += [-0.03, 0.06]
    curve = smooth(STEPS, loss)
    assert curve.final > curve.loss[-1]
    assert not curve.rises
    assert curve.step_at(curve.final) == pytest.approx(1000)


def test_a_rise_at_the_end_is_noticed():
    x = np.log(STEPS)
    curve = smooth(STEPS, 3 + (x - 6) ** 2)
    assert curve.rises
    assert curve.final == pytest.approx(3 + (x[-1] - 6) ** 2)
    # The same loss on the way down.
    assert curve.step_at(curve.final) == pytest.approx(np.exp(12 - x[-1]), rel=0.02)
    assert curve.rise == pytest.approx((x[-1] - 6) ** 2, abs=0.01)
    assert (np.diff(curve.loss) <= 0).all()


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 6])
def test_few_evaluations(count):
    y = 4 - 0.3 * np.log(STEPS[:count])
    np.testing.assert_allclose(smooth(STEPS[:count], y).loss, y, rtol=1e-9)


def test_what_is_left_out():
    curve = smooth([0, 10, 20, 30], [9.0, 5.0, float("nan"), 4.0])
    assert np.exp(curve.log_steps) == pytest.approx([10, 30])
    with pytest.raises(ValueError, match="no evaluation"):
        smooth([0], [1.0])
