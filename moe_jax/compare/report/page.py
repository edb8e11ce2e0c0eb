"""The contents of a report in their order, from which HTML and Markdown are written."""

import dataclasses

from moe_jax.compare.report import (
    arms,
    causality,
    costs,
    health,
    methods,
    rates,
    reproduction,
    seeds,
    setup_tables,
)
from moe_jax.compare.report.reproduction import Code
from moe_jax.compare.report.table import Table
from moe_jax.compare.results import Comparison

# Begins the lines on runs that are used although they differ from the others.
_MARKED = "marked: "


@dataclasses.dataclass(frozen=True)
class Section:
    """A part of a report; what is empty is not shown.

    Attributes:
        heading: its heading.
        lines: paragraphs.
        items: items of a list.
        tables: tables.
        codes: texts to copy.
    """

    heading: str
    lines: tuple[str, ...] = ()
    items: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    codes: tuple[Code, ...] = ()


@dataclasses.dataclass(frozen=True)
class Page:
    """The contents of a report.

    Attributes:
        question: its title.
        cannot_tell: what stands above the answer if the A/A interval excludes 1; else empty.
        answer: the answer in one sentence.
        warnings: what makes the answer doubtful.
        arms: the main table.
        aa: the sentence on the A/A runs.
        sections: what follows the figures.
    """

    question: str
    cannot_tell: str
    answer: str
    warnings: tuple[str, ...]
    arms: Table
    aa: str
    sections: tuple[Section, ...]


def make_page(comparison: Comparison) -> Page:
    """Returns the contents of the report on a comparison."""
    doubt, warnings = arms.split_warnings(comparison)
    return Page(
        question=comparison.plan.question.strip() or "Comparison of training runs",
        cannot_tell=doubt,
        answer=comparison.answer,
        warnings=warnings,
        arms=arms.arms_table(comparison),
        aa=arms.aa_sentence(comparison),
        sections=_sections(comparison),
    )


def _sections(comparison: Comparison) -> tuple[Section, ...]:
    targets, plan = costs.targets_table(comparison), comparison.plan
    environment = reproduction.environments_table(comparison.environments)
    lines = comparison.left_out
    marked = tuple(line.removeprefix(_MARKED) for line in lines if line.startswith(_MARKED))
    refused = tuple(line for line in lines if not line.startswith(_MARKED))
    source = (Code("Configuration of the study (gin)", plan.source),) if plan.source.strip() else ()
    return (
        Section(
            "Setup",
            tables=_present(
                setup_tables.setup_table(comparison), setup_tables.differences_table(comparison)
            ),
        ),
        Section("Costs", tables=(costs.step_table(comparison), costs.units_table(comparison))),
        Section(
            "Results by seed",
            tables=_present(seeds.losses_table(comparison), seeds.speed_ups_table(comparison)),
        ),
        Section("Learning-rate sweep", tables=(rates.rates_table(comparison),)),
        Section("Causality", tables=(causality.causality_table(comparison),)),
        Section("Health", tables=(health.health_table(comparison),)),
        Section(
            "Steps to target loss",
            lines=() if targets else ("The study has no targets.",),
            tables=_present(targets),
        ),
        Section("Methods", items=methods.method_lines(comparison)),
        Section(
            "What this does not show",
            lines=() if comparison.not_shown else ("Nothing is on record.",),
            items=comparison.not_shown,
        ),
        Section(
            "Runs left out",
            lines=() if refused else ("None.",),
            items=refused,
        ),
        *([Section("Runs used, but marked", items=marked)] if marked else []),
        Section(
            "Commands",
            lines=(
                "One command for each arm; those of all runs, trials among them, are in "
                "results.jsonl.",
            ),
            codes=reproduction.commands(comparison),
        ),
        Section("Configuration and environment", tables=_present(environment), codes=source),
    )


def _present(*tables: Table | None) -> tuple[Table, ...]:
    return tuple(table for table in tables if table is not None)
