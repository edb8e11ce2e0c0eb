"""HTML and Markdown: well-formed, complete, and safe with any text."""

import dataclasses
import math
import re
from html.parser import HTMLParser

import pytest
from sample_comparison import HOSTILE, arm_result, hostile_comparison, sample_comparison

from moe_jax.compare.report.figures import draw_figures
from moe_jax.compare.report.page import make_page
from moe_jax.compare.report.render import render_html, render_markdown
from moe_jax.compare.results import Estimate
from moe_jax.formatting import printable

VOID = {"meta", "link", "br", "wbr"}


class Reader(HTMLParser):
    """Reads a page; `elements` has name and attributes of each element, `text` its text."""

    def __init__(self, page):
        super().__init__()
        self.elements, self.text, self.open = [], "", []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text += data

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


def render(comparison):
    page, figures = make_page(comparison), draw_figures(comparison)
    return render_html(page, figures), render_markdown(page, figures)


@pytest.fixture(scope="module")
def sample():
    return render(sample_comparison())


@pytest.fixture(scope="module")
def hostile():
    return render(hostile_comparison())


def test_the_page_is_well_formed_and_accessible(sample):
    page = Reader(sample[0])
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    named = " ".join(a.get("aria-labelledby", "") for _, a in page.elements).split()
    assert set(named) <= set(ids)
    assert len(page.all("h1")) == len(page.all("main")) == 1
    assert page.all("html")[0]["lang"] == "en"
    assert len(page.all("table")) == len(page.all("caption")) == 11
    assert {a.get("scope") for a in page.all("th")} == {"col", "row"}
    assert [a["role"] for a in page.all("svg")] == ["img"] * 4
    assert len(page.all("figcaption")) == 4


def test_the_parts_of_the_page_are_in_order(sample):
    parts = ["fewer steps than Switch", "Yes: ec_sequence", "Warnings", "Arms compared", "A/A: "]
    parts += ["Held-out causal loss over", "Setup", "Costs", "Results by seed"]
    parts += ["Learning-rate sweep", "Causality", "Drops, load", "Steps to target loss", "Methods"]
    parts += ["What this does not show", "Runs left out"]
    parts += ["Commands", "Configuration of the study", "moe_jax"]
    text = Reader(sample[0]).text.partition("Does expert choice")[2]
    places = [text.index(part) for part in parts[:-2]]
    assert places == sorted(places)
    assert "Study.baseline = 'switch'" in text


def test_an_aa_interval_without_1_is_above_the_answer():
    page = make_page(sample_comparison(aa_ratio=1.2))
    html, markdown = render_html(page, ()), render_markdown(page, ())
    for text in (Reader(html).text, markdown):
        assert text.index("This study cannot tell") < text.index("Yes: ec")


def test_nothing_is_loaded_and_nothing_runs(sample, hostile):
    for html, _ in (sample, hostile):
        page = Reader(html)
        assert not {name for name, _ in page.elements} & {"script", "img", "iframe", "object", "a"}
        for name, attributes in page.elements:
            assert not [key for key in attributes if key.startswith("on")]
            for key in ("src", "href", "xlink:href", "action", "data"):
                value = attributes.get(key, "#")
                assert value.startswith("#") or (name, value) == ("link", "data:,")
        assert "url(http" not in html
        assert "@import" not in html


def test_a_hostile_text_is_shown_as_it_is(hostile):
    html, markdown = hostile
    text = Reader(html).text
    shown = printable(HOSTILE.replace("\n", ""))
    # Title, heading, answer, warning, arm in the tables, and more.
    assert text.replace("\n", "").count(shown) >= 15
    assert "<script" not in html
    assert "\x1b" not in html + markdown
    outside = re.sub(r"^(`{3,})\n.*?\n\1$", "", markdown, flags=re.MULTILINE | re.DOTALL)
    assert not re.search(r"<(?!br>)|(?<!\\)`|(?<!\\)\$|heading", outside)


def test_markdown_tables_have_as_many_cells_in_every_row(sample, hostile):
    for _, markdown in (sample, hostile):
        blocks = re.findall(r"(?:^\|.*\|\n)+", markdown, re.MULTILINE)
        assert len(blocks) == 11
        for block in blocks:
            counts = {len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}
            assert len(counts) == 1


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("# heading", r"\# heading"),
        ("1. item", r"1\. item"),
        ("- item", r"\- item"),
        ("3.14", "3.14"),
        ("-0.5", "-0.5"),
        ("a_b *c* [d](e) <f>&", r"a\_b \*c\* \[d\](e) &lt;f&gt;&amp;"),
    ],
)
def test_markdown_is_escaped_where_it_has_a_meaning(text, escaped):
    comparison = dataclasses.replace(sample_comparison(), not_shown=(text,))
    assert f"\n- {escaped}\n" in render_markdown(make_page(comparison), ())


def test_a_fence_is_longer_than_those_inside(hostile):
    assert hostile[1].rstrip().endswith("```\n# heading\n````")


def test_commands_are_blocks_of_their_own(sample):
    html, markdown = sample
    command = "moe-jax train \\\n  --gin_file=runs/dense.gin \\\n  --gin.Train.seed=$SEED\ndone"
    command = f"for SEED in 11 12 13 14 15; do\n{command}"
    assert f"<summary>dense</summary>\n<pre><code>{command}</code></pre>" in html
    assert f"```\n{command}\n```" in markdown


def test_no_number_is_shown_that_is_none():
    found = sample_comparison()
    nothing = Estimate(math.nan, -math.inf, math.inf, 5, math.nan, math.nan)
    arm = arm_result("dense", found.plan.seeds, loss=nothing, causal_loss=nothing, gap=nothing)
    speed_ups = {
        routing: {
            unit: dataclasses.replace(value, estimate=nothing) for unit, value in by_unit.items()
        }
        for routing, by_unit in arm.speed_ups.items()
    }
    arm = dataclasses.replace(arm, speed_ups=speed_ups)
    page = make_page(dataclasses.replace(found, arms={**found.arms, "dense": arm}))
    html, markdown = render_html(page, ()), render_markdown(page, ())
    for text in (Reader(html).text, markdown):
        assert not re.search(r"\b(nan|inf|none(?! detected)|null)\b", text, re.IGNORECASE)
        assert "not finite" in text
