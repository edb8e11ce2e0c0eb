"""The reports in a real browser: at two widths, light and dark, and in print."""

import io
import re

import fake_finetuning
import numpy as np
import pytest
from chromium import Page, browser, find_chromium
from etils import epath
from matplotlib import image
from sample_comparison import hostile_comparison, sample_comparison

from moe_jax.compare.report import write_report
from moe_jax.compare.results_file import write_records
from moe_jax.finetuning.report import make_report

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        find_chromium() is None,
        reason="no Chromium found: install the package chromium, or set CHROMIUM to its path",
    ),
]
VIEWS = [(width, scheme) for width in (400, 1200) for scheme in ("light", "dark")]
# Left, right, top and bottom of what a selector finds.
BOXES = """[...document.querySelectorAll('%s')].map(e => e.getBoundingClientRect())
    .map(b => [b.left, b.right, b.top, b.bottom])"""


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    with browser(tmp_path_factory.mktemp("profile")) as found:
        yield found


def comparison_report(directory):
    return write_report(sample_comparison(), directory)


def hostile_report(directory):
    return write_report(hostile_comparison(), directory)


def finetuning_report(directory):
    records = directory / "records.jsonl"
    write_records(records, fake_finetuning.records())
    return make_report(str(records), directory)[1]


@pytest.fixture(scope="module", params=[comparison_report, hostile_report, finetuning_report])
def report(request, tmp_path_factory):
    return request.param(epath.Path(tmp_path_factory.mktemp("report"))).html


@pytest.mark.parametrize(("width", "scheme"), VIEWS)
def test_the_page(opened, report, width, scheme):
    url = f"file://{report}"
    page = Page(opened, url, width, scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("document.body.innerText").strip()
    figures = page.evaluate(BOXES % "figure svg")
    assert len(figures) in (1, 4)
    assert len(figures) == report.read_text().count("<figure")
    for left, right, top, bottom in figures:
        assert 0 <= left < right <= width
        assert right - left > 300
        assert bottom - top > 100
    # The letters of a figure are no smaller than this on the screen.
    heights = page.evaluate(BOXES % "figure svg text")
    assert min(bottom - top for *_, top, bottom in heights) > 8
    page.evaluate("document.querySelectorAll('details').forEach(e => e.open = true)")
    for left, right, *_ in page.evaluate(BOXES % ".scroll, pre, h1, p, li"):
        assert 0 <= left < right <= width
    pixels = image.imread(io.BytesIO(page.screenshot()))[..., :3]
    background = float(np.median(pixels))
    assert background > 0.95 if scheme == "light" else background < 0.15
    # Lines and letters of the first figure differ from the background.
    assert np.ptp(pixels) > 0.8
    assert page.requests == [url]
    assert page.complaints == []


def test_print(opened, report):
    page = Page(opened, f"file://{report}", scheme="dark")
    pdf = page.pdf()
    assert pdf.startswith(b"%PDF-")
    assert len(re.findall(rb"/Type\s*/Page\b", pdf)) > 2
    page.print_media()
    assert page.evaluate("getComputedStyle(document.documentElement).backgroundColor") == (
        "rgb(254, 254, 254)"
    )
    # Nothing is hidden in boxes that scroll, and no table is wider than a sheet of A4.
    assert page.evaluate(
        "[...document.querySelectorAll('.scroll')].every("
        "e => getComputedStyle(e).overflowX == 'visible' && e.scrollHeight <= e.offsetHeight + 1)"
    )
    assert max(right for _, right, *_ in page.evaluate(BOXES % "table")) <= page.width
    # Commands are not folded, and no letters are below 8 pt.
    assert min(bottom - top for *_, top, bottom in page.evaluate(BOXES % "pre")) > 8
    sizes = "[...document.querySelectorAll('main *')].filter(e => !e.closest('svg'))"
    sizes = page.evaluate(f"{sizes}.map(e => parseFloat(getComputedStyle(e).fontSize))")
    assert min(sizes) > 8 * 96 / 72 - 0.01
    assert page.complaints == []
