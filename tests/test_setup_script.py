"""Which Python scripts/setup.sh takes, with pretended ones: nothing is installed."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

SCRIPT = Path(__file__).parent.parent / "scripts" / "setup.sh"
TOOLS = ("bash", "cat", "cp", "dirname", "mkdir", "mktemp", "rm", "tail")
# Says its version and where its headers are, and makes no environment.
PYTHON = """#!/bin/bash
if [[ "$1" == -c ]]; then echo "{version} {include}"; else echo "chosen: $0"; exit 1; fi
"""


@pytest.fixture
def setup(tmp_path):
    """Returns a call of setup.sh where only some Pythons and perhaps a compiler are found."""
    for tool in TOOLS:
        (tmp_path / tool).symlink_to(shutil.which(tool))

    def call(pythons, compiler=False, headers=True, **environment):
        include = tmp_path / "include"
        include.mkdir()
        if headers:
            (include / "Python.h").touch()
        for name, version in pythons.items():
            (tmp_path / name).write_text(PYTHON.format(version=version, include=include))
            (tmp_path / name).chmod(0o755)
        if compiler:
            (tmp_path / "g++").write_text("")
            (tmp_path / "g++").chmod(0o755)
        environment |= {"PATH": str(tmp_path), "MOE_JAX_VENV": str(tmp_path / "venv")}
        environment["TMPDIR"] = str(tmp_path)
        ended = subprocess.run(
            ["bash", SCRIPT], env=environment, capture_output=True, text=True, check=False
        )
        assert ended.returncode == 1
        chosen = [line for line in ended.stderr.splitlines() if line.startswith("chosen: ")]
        names = [Path(line.split()[1]).name for line in chosen]
        return (names or [None])[0], ended.stderr

    return call


@pytest.mark.parametrize(
    ("pythons", "compiler", "chosen"),
    [
        ({"python3": "3.12"}, False, "python3"),
        ({"python3": "3.9", "python3.11": "3.11"}, False, "python3.11"),
        ({"python3": "3.13"}, True, "python3"),
        ({"python3": "3.14", "python3.13": "3.13"}, True, "python3.13"),
        ({"python3": "3.13", "python3.12": "3.12"}, True, "python3"),
    ],
)
def test_the_first_that_can_is_taken_without_a_word(setup, pythons, compiler, chosen):
    found, said = setup(pythons, compiler)
    assert found == chosen
    assert "setup: taking" not in said


@pytest.mark.parametrize("lacks", [{"compiler": False}, {"compiler": True, "headers": False}])
def test_without_a_compiler_an_older_one_is_taken_and_said(setup, lacks):
    found, said = setup({"python3": "3.13", "python3.11": "3.11"}, **lacks)
    assert found == "python3.11"
    assert said.count("setup: taking python3.11, for python3 is Python 3.13, which needs") == 1
    assert "build-essential, python3-dev" in said


@pytest.mark.parametrize(
    ("pythons", "environment", "message"),
    [
        ({"python3": "3.13"}, {}, "python3 is Python 3.13, which needs a C++ compiler"),
        ({"mine": "3.13"}, {"PYTHON": "mine"}, "mine is Python 3.13, which needs a C++ compiler"),
        ({"python3": "3.14"}, {}, "needs Python 3.11, 3.12 or 3.13, found none as python3 "),
        ({"mine": "3.10"}, {"PYTHON": "mine"}, "found none as mine; set PYTHON to one"),
        ({}, {}, "needs Python 3.11, 3.12 or 3.13"),
    ],
)
def test_none_that_can_is_one_line(setup, pythons, environment, message):
    found, said = setup(pythons, **environment)
    assert found is None
    assert message in said
    assert said.count("\n") == 1


def test_the_metadata_allow_the_same_pythons():
    found = re.search(r'python_requires="([^"]+)"', (SCRIPT.parent.parent / "setup.py").read_text())
    allowed = SpecifierSet(found[1])
    versions = [f"3.{minor}.1" for minor in range(9, 16)]
    assert [v for v in versions if v in allowed] == ["3.11.1", "3.12.1", "3.13.1"]
