"""The figures: what is drawn, and the SVG that goes into the page."""

import dataclasses
import io
import math
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib import image
from sample_comparison import HOSTILE, STEPS, hostile_comparison, sample_comparison
from scipy import stats

from moe_jax.compare.report.figures import canvas, draw_figures, loss_curves
from moe_jax.compare.report.figures.inline_svg import inline_svg
from moe_jax.compare.results import Estimate
from moe_jax.formatting import printable

SVG = "{http://www.w3.org/2000/svg}"
NAMES = ["loss_curves", "speed_up", "speed_up_by_loss", "both_losses"]


@pytest.fixture(scope="module")
def figures():
    return draw_figures(sample_comparison())


def texts(svg):
    return ["".join(e.itertext()) for e in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def test_all_figures_can_be_read_as_svg_and_png(figures):
    assert [figure.name for figure in figures] == NAMES
    for figure in figures:
        pixels = image.imread(io.BytesIO(figure.png))
        assert pixels.shape[1] == 960
        assert np.ptp(pixels[..., :3]) > 0.5
        assert ElementTree.fromstring(figure.svg).tag == f"{SVG}svg"


def test_arms_units_and_values_are_in_the_figures(figures):
    curves, forest, by_loss, losses = (texts(figure.svg) for figure in figures)
    for shown in (curves, losses):
        assert {"switch", "ec_sequence", "ec_threshold", "dense"} <= set(shown)
    assert {"ec_sequence", "dense", "A/A (steps)", "by loss as trained"} <= set(forest)
    assert "switch" not in forest
    assert "speed-up in FLOPs over switch" in forest
    assert "1.43× [1.34, 1.52]" in forest
    assert "1×" in forest
    assert "1×" in by_loss


def test_a_description_has_the_values(figures):
    assert "ec_sequence 1.43× [1.34, 1.52]" in figures[1].values
    assert "dense 0.62× at 3.650" in figures[2].values
    assert "begins at the loss after 20% of training" in figures[0].description
    assert "ec_sequence 3.391 causal and 3.237 as trained" in figures[3].values


def test_the_speed_up_is_told_where_all_pairs_count():
    found = sample_comparison()
    dense = found.arms["dense"]
    curve = dataclasses.replace(dense.speed_up_curve, pairs=(*(5,) * 10, *(3,) * 10))
    arms = {**found.arms, "dense": dataclasses.replace(dense, speed_up_curve=curve)}
    values = draw_figures(dataclasses.replace(found, arms=arms))[2].values
    loss, ratio = curve.losses[9], curve.ratios[9]
    assert f"dense {ratio:.2f}× at {loss:.3f}" in values


def test_differences_are_those_of_paired_evaluations():
    arms = sample_comparison(seeds=(11, 12, 13)).arms
    runs = dict(arms["dense"].runs)
    # A step that the baseline does not have, and a loss of one seed that is higher.
    moved = runs[12].curve
    moved = dataclasses.replace(moved, causal_loss=tuple(x + 0.3 for x in moved.causal_loss))
    runs[12] = dataclasses.replace(runs[12], curve=moved)
    runs[13] = dataclasses.replace(
        runs[13], curve=dataclasses.replace(runs[13].curve, steps=(49, *STEPS[1:]))
    )
    dense = dataclasses.replace(arms["dense"], runs=runs)
    band = loss_curves.paired_differences(dense, arms["switch"])
    assert [step for step, *_ in band] == list(STEPS[1:])
    differences = np.array([0.173, 0.473, 0.173])
    low, high = stats.t.interval(0.95, 2, differences.mean(), stats.sem(differences))
    np.testing.assert_allclose(
        [found[1:] for found in band], [[differences.mean(), low, high]] * 19
    )


def test_svg_for_the_page(figures):
    ids = []
    for figure in figures:
        root = ElementTree.fromstring(inline_svg(figure))
        assert root.get("role") == "img"
        named = root.get("aria-labelledby").split()
        found = {e.get("id"): e for e in root.iter() if e.get("id")}
        assert found[named[0]].text == figure.title
        assert found[named[1]].text == f"{figure.description} {figure.values}"
        ids += found
        used = [e.get("{http://www.w3.org/1999/xlink}href") for e in root.iter(f"{SVG}use")]
        assert {name.removeprefix("#") for name in used} <= set(found)
        clips = {e.get("clip-path") for e in root.iter() if e.get("clip-path")}
        assert {clip[5:-1] for clip in clips} <= set(found)
        text = inline_svg(figure)
        assert "var(--ink)" in text
        assert "var(--paper)" in text
        assert canvas.INK not in text
        assert not {e.tag for e in root.iter()} & {f"{SVG}style", f"{SVG}script", f"{SVG}metadata"}
    assert len(ids) == len(set(ids))


def test_the_colour_black_is_that_of_the_text():
    assert canvas.arm_style(6)["color"] == canvas.INK
    assert canvas.arm_style(7) == {"color": "#0072B2", "linestyle": "--"}


def test_hostile_names_are_texts():
    for figure in draw_figures(hostile_comparison()):
        assert all(map(str.isprintable, (figure.title, figure.description, figure.values)))
        for svg in (figure.svg, inline_svg(figure)):
            assert "<script" not in svg
            ElementTree.fromstring(svg)
        assert printable(HOSTILE)[:10] in "".join(texts(figure.svg))
    figures = draw_figures(hostile_comparison("_hidden$x^2$"))
    assert all("_hidden$x^2$" in texts(figure.svg) for figure in figures)


def test_one_seed_and_no_finite_value():
    assert len(draw_figures(sample_comparison(seeds=(11,)))) == 4
    found = sample_comparison()
    nothing = Estimate(math.nan, math.nan, math.nan, 5)
    nan = (math.nan,) * 20
    arms = {
        name: dataclasses.replace(
            arm,
            loss=nothing,
            causal_loss=nothing,
            speed_ups={},
            speed_up_curve=None,
            curve=dataclasses.replace(arm.curve, loss=nan, low=nan, high=nan),
        )
        for name, arm in found.arms.items()
    }
    assert draw_figures(dataclasses.replace(found, arms=arms, aa=None)) == ()


@pytest.mark.parametrize("ends", [(0.98, 1.02), (0.5, 1.7), (0.02, 40.0), (1.2, 1.3)])
def test_an_axis_of_ratios_has_1_and_few_ticks(ends):
    drawing, axes = canvas.axes_of(2)
    canvas.ratio_axis(axes.yaxis, *ends)
    drawing.draw_without_rendering()
    low, high = axes.get_ylim()
    assert low < min(1, ends[0])
    assert high > max(1, ends[1])
    assert 1.0 in axes.get_yticks()
    assert 2 <= len(axes.get_yticks()) <= 7
