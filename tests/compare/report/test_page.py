"""What is on the page, and in which order."""

import dataclasses

import pytest
from sample_comparison import hostile_comparison, sample_comparison

from moe_jax.compare.report.page import make_page
from moe_jax.compare.results import Health


@pytest.fixture(scope="module")
def page():
    return make_page(sample_comparison())


def table(page, start):
    tables = [page.arms, *(table for section in page.sections for table in section.tables)]
    return next(table for table in tables if table.caption.startswith(start))


def row(page, start, arm):
    found = table(page, start)
    cells = next(cells for cells in found.rows if cells[0].text == arm)
    return dict(zip(found.columns, cells, strict=True))


def test_the_question_the_answer_and_the_order_of_the_sections(page):
    assert page.question.startswith("Does expert choice")
    assert page.answer.startswith("Yes: ec_sequence")
    assert [section.heading for section in page.sections] == [
        "Setup",
        "Costs",
        "Results by seed",
        "Learning-rate sweep",
        "Causality",
        "Health",
        "Steps to target loss",
        "Methods",
        "What this does not show",
        "Runs left out",
        "Commands",
        "Configuration and environment",
    ]


def test_the_row_of_an_arm(page):
    cells = row(page, "Arms", "ec_sequence")
    assert (cells["causal loss"].text, cells["causal loss"].note) == ("3.391", "[3.378, 3.404]")
    assert cells["loss as trained"].text == "3.237"
    assert cells["gap"].text == "0.154"
    speed_up = cells["speed-up in FLOPs"]
    assert (speed_up.text, speed_up.note) == ("1.43×", "[1.34, 1.52]")
    assert (cells["p"].text, cells["p (Holm)"].text) == ("0.003", "0.009")
    assert (cells["reached"].text, cells["seeds"].text) == ("5 of 5", "5")


def test_the_baseline_is_compared_with_nothing(page):
    cells = row(page, "Arms", "switch")
    assert (cells["speed-up in FLOPs"].text, cells["p"].note) == ("1", "baseline")


def test_not_reached_is_a_result(page):
    assert row(page, "Arms", "dense")["reached"].note == "not reached"
    costs = row(page, "Steps to reach", "dense")
    assert costs["3.450"].text == "not reached"
    assert costs["3.450"].note == "0 of 5 seeds"
    assert costs["3.482, the baseline's final loss"].text == "not reached"
    reached = row(page, "Steps to reach", "ec_sequence")["3.482, the baseline's final loss"]
    assert (reached.text, reached.note) == ("699", "[658, 740] 5 of 5 seeds")


def test_a_unit_that_an_arm_does_not_have_has_its_reason(page):
    cell = row(page, "Speed-up in every unit", "dense")["expert slots"]
    assert (cell.text, cell.note) == ("-", "dense: no expert slots")


def test_a_learning_rate_at_the_edge_is_flagged(page):
    chosen = row(page, "Final causal loss by", "ec_sequence")["learning rate"]
    assert (chosen.text, chosen.is_flagged) == ("0.004", True)
    assert not row(page, "Final causal loss by", "switch")["learning rate"].is_flagged
    assert row(page, "Final causal loss by", "switch")["loss at 0.004"].note == "diverged"


def test_a_leak_is_flagged(page):
    cells = row(page, "What each arm sees", "ec_sequence")
    assert (cells["sees the future"].text, cells["random-token test"].text) == ("yes", "leaks")
    assert cells["random-token test"].is_flagged
    assert cells["speed-up in FLOPs, as trained"].text == "1.74×"
    assert row(page, "What each arm sees", "switch")["random-token test"].text == ("none detected")
    assert "-41.3 SE" in cells["random-token test"].note


def test_a_command_for_the_study_and_for_each_arm(page):
    codes = {code.label: code.text for code in page.sections[-2].codes}
    assert list(codes) == ["The whole study", *page_arms(page), "A/A"]
    assert codes["The whole study"].startswith("moe-jax compare \\\n  --gin_file=runs/compare.gin")
    assert codes["dense"] == (
        "for SEED in 11 12 13 14 15; do\n"
        "moe-jax train \\\n  --gin_file=runs/dense.gin \\\n  --gin.Train.seed=$SEED\ndone"
    )
    one = make_page(sample_comparison(seeds=(11,))).sections[-2].codes
    assert [code.label for code in one if "A/A" in code.label] == ["A/A, seed 11"]


def page_arms(page):
    return [cells[0].text for cells in page.arms.rows]


def test_targets_that_some_seeds_do_not_reach_have_lower_bounds():
    found = sample_comparison()
    arm = found.arms["ec_sequence"]
    first = dataclasses.replace(arm.targets[0], reached=3)
    arms = {
        **found.arms,
        "ec_sequence": dataclasses.replace(arm, targets=(first, *arm.targets[1:])),
    }
    page = make_page(dataclasses.replace(found, arms=arms))
    cell = row(page, "Steps to reach", "ec_sequence")["3.482, the baseline's final loss"]
    assert (cell.text, cell.note) == ("≥ 699", "3 of 5 seeds")


def test_results_of_each_seed(page):
    assert row(page, "Final causal loss of each", "A/A")["seed 12"].text != "-"
    assert row(page, "Speed-up in FLOPs of each", "dense")["seed 12"].text == "0.61×"


def test_marked_runs_are_apart_from_those_left_out():
    lines = ("runs/a: refused: unfinished", "marked: runs/b: other batch")
    page = make_page(dataclasses.replace(sample_comparison(), left_out=lines))
    found = {section.heading: section.items for section in page.sections}
    assert found["Runs left out"] == lines[:1]
    assert found["Runs used, but marked"] == ("runs/b: other batch",)
    headings = [section.heading for section in make_page(sample_comparison()).sections]
    assert "Runs used, but marked" not in headings


def test_the_resolution_is_that_of_the_aa_interval(page):
    # 1.02 ± 0.09: the ends are 0.93 and 1.11, and sqrt(1.11 / 0.93) = 1.0925.
    assert "speed-ups in steps within about ±9.2% of 1 cannot be told" in page.aa


def test_an_aa_interval_without_1_stands_on_top():
    comparison = sample_comparison(aa_ratio=1.2)
    page = make_page(comparison)
    assert page.cannot_tell.startswith("This study cannot tell. A/A: switch against itself")
    assert "1.20× [1.11, 1.29]" in page.cannot_tell
    line = "This study cannot tell: switch differs from itself"
    page = make_page(dataclasses.replace(comparison, warnings=(line, "other")))
    assert (page.cannot_tell, page.warnings) == (line, ("other",))


def test_one_seed_has_no_intervals_and_says_so():
    page = make_page(sample_comparison(seeds=(11,)))
    cells = row(page, "Arms", "ec_sequence")
    assert (cells["causal loss"].note, cells["p"].note) == ("one seed", "one pair")
    assert page.aa.endswith("from one pair: no interval.")


def test_without_aa_rates_targets_and_step_times():
    found = sample_comparison()
    arms = {
        name: dataclasses.replace(
            arm,
            rate=None,
            targets=(),
            leak_test=None,
            health=Health(),
            cost=dataclasses.replace(arm.cost, seconds=None, seconds_ratio=None),
        )
        for name, arm in found.arms.items()
    }
    plan = dataclasses.replace(found.plan, targets=(), command="", source="")
    page = make_page(dataclasses.replace(found, aa=None, arms=arms, plan=plan))
    assert page.aa.startswith("A/A (the baseline against itself) was not run")
    assert row(page, "Final causal loss by", "switch")["learning rate"].note == "no trials"
    assert row(page, "Cost of a training step", "dense")["step time"].note == "not timed"
    assert row(page, "What each arm sees", "switch")["random-token test"].note == "not run"
    lines = {section.heading: section.lines for section in page.sections}
    assert lines["Steps to target loss"] == ("The study has no targets.",)


def test_every_dash_has_a_reason_and_every_row_all_columns():
    for comparison in (sample_comparison(), sample_comparison((11,)), hostile_comparison()):
        page = make_page(comparison)
        tables = [page.arms, *(table for section in page.sections for table in section.tables)]
        for shown in tables:
            for cells in shown.rows:
                assert len(cells) == len(shown.columns)
                assert [cell for cell in cells if cell.text in ("-", "") and not cell.note] == []


def test_what_differs_between_environments_is_flagged():
    found = sample_comparison()
    other = {**found.environments[0], "python": "3.12.1"}
    page = make_page(dataclasses.replace(found, environments=(*found.environments, other)))
    cells = row(page, "Versions", "python")
    assert [cells[f"environment {n}"].text for n in (1, 2)] == ["3.11.7", "3.12.1"]
    assert all(cells[f"environment {n}"].is_flagged for n in (1, 2))
    assert not row(page, "Versions", "moe_jax")["environment 1"].is_flagged


@pytest.mark.parametrize(
    ("bound", "text", "note"),
    [
        ("lower", "≥ 1.43×", "loss passed before the first evaluation in 2 of 5 pairs"),
        ("upper", "≤ 1.43×", "loss passed before the first evaluation in 2 of 5 pairs"),
        ("neither", "-", "loss passed before the first evaluation"),
    ],
)
def test_a_speed_up_that_is_a_bound_says_so(bound, text, note):
    found = sample_comparison()
    arm = found.arms["ec_sequence"]
    by_unit = dict(arm.speed_ups["causal"])
    estimate = dataclasses.replace(
        by_unit["flops"].estimate, low=None, high=None, p=None, p_holm=None
    )
    by_unit["flops"] = dataclasses.replace(
        by_unit["flops"], estimate=estimate, censored=2, bound=bound
    )
    arm = dataclasses.replace(arm, speed_ups={**arm.speed_ups, "causal": by_unit})
    page = make_page(dataclasses.replace(found, arms={**found.arms, "ec_sequence": arm}))
    cells = row(page, "Arms", "ec_sequence")
    shown = cells["speed-up in FLOPs"]
    assert (shown.text, shown.note) == (text, note)
    assert cells["p"].note == "no interval"
