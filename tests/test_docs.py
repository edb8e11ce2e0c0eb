"""Pages that are written by a command are up to date; links and names lead somewhere."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

from moe_jax.compare.analysis import compare
from moe_jax.compare.grouping import change_plan
from moe_jax.compare.records import RunRecord, StudyPlan
from moe_jax.compare.report import digits, units
from moe_jax.compare.results_file import read_records

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
# Texts that name files and modules; the changelog may name what was.
TEXTS = [page for page in PAGES if page.name != "CHANGELOG.md"]
TEXTS += [path for end in ("py", "gin") for path in sorted((ROOT / "moe_jax").rglob(f"*.{end}"))]
TEXTS += [*sorted((ROOT / "scripts").iterdir()), *sorted((ROOT / "tests/helpers").glob("*.py"))]
FILE = re.compile(r"(?<![\w/.-])(?:moe_jax|tests|docs|scripts)/[\w/-]+\.(?:py|md|gin|sh|json)\b")
# Names that go on with a capital letter are gin's: `moe_jax.Loss`.
NAME = re.compile(r"(?<![\w/.@-])moe_jax\.[a-z_]\w*(?:\.[A-Za-z_]\w*)*")
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")


@pytest.mark.parametrize("script", ["router_table.py", "size_trend.py", "estimate_table.py"])
def test_tables_are_what_the_routers_and_the_records_say(script):
    run = subprocess.run(
        [sys.executable, ROOT / "scripts" / script, "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_links_between_pages_lead_somewhere(page):
    for target in LINK.findall(page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def exists(name):
    """Whether a dotted name is a module of the package, or a name that the text of one has."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        path = ROOT.joinpath(*parts[:length])
        module = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        if module.exists():
            words = re.findall(r"\w+", module.read_text())
            return parts[length : length + 1] == [] or parts[length] in words
    return False


@pytest.mark.parametrize("path", TEXTS, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_files_and_modules_that_texts_name_are_there(path):
    text = path.read_text()
    assert [file for file in FILE.findall(text) if not (ROOT / file).exists()] == []
    assert [name for name in NAME.findall(text) if not exists(name)] == []


def test_pages_quote_a_libtpu_that_the_extra_can_install():
    bounds = re.search(r'"libtpu([^"]+)"', (ROOT / "setup.py").read_text())
    allowed = SpecifierSet(bounds[1])
    quoted = {
        (page.name, version)
        for page in PAGES
        for version in re.findall(r"libtpu (\d+(?:\.\d+)+)", page.read_text())
    }
    assert {name for name, _ in quoted} >= {"pods.md", "routing.md"}
    assert [(name, version) for name, version in quoted if version not in allowed] == []


@pytest.mark.parametrize(
    ("study", "baseline", "arms"),
    [
        (
            "study",
            "gshard",
            ("ec_batch", "ec_sequence", "ec_position", "dropless_top2", "dense_flops"),
        ),
        ("study", "switch", ("ec_batch", "ec_c1")),
        ("study", "ec_batch", ("ec_cap3", "ec_e32", "frozen")),
        ("long_64", "gshard", ("ec_batch", "switch", "dense_flops")),
        ("long_64", "switch", ("ec_batch",)),
    ],
)
def test_the_numbers_of_the_convergence_page_are_those_of_its_records(study, baseline, arms):
    records = read_records(ROOT / "docs" / "results" / "convergence" / f"{study}.jsonl")
    page = (ROOT / "docs" / "results" / "convergence.md").read_text()
    plan = next(record for record in reversed(records) if isinstance(record, StudyPlan))
    found = compare(change_plan(plan, baseline), records)
    for name in arms:
        text, interval = digits.speed_up(units.speed_up(found.arms[name], "steps"))
        assert f"{text} {interval}" in page, name
    assert f"{sum(isinstance(record, RunRecord) for record in records)} runs" in page
