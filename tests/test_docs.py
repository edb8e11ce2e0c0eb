"""Pages that are written by a command are up to date, and links lead somewhere."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")


def test_the_table_of_routers_is_what_the_routers_say():
    run = subprocess.run(
        [sys.executable, ROOT / "scripts" / "router_table.py", "--check"],
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
