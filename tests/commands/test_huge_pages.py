"""The command line starts itself again with huge pages: once, and only where it helps."""

import os
import subprocess
import sys

import pytest

from moe_jax.commands import huge_pages


@pytest.fixture
def process(monkeypatch, tmp_path):
    """Returns a stand-in for a Linux process on CPU whose kernel leaves pages to it."""
    switch = tmp_path / "enabled"
    switch.write_text("always [madvise] never\n")
    monkeypatch.setattr(huge_pages, "_SWITCH", str(switch))
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(sys, "orig_argv", ["python", "-m", "moe_jax.cli", "train"])
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    calls = []
    monkeypatch.setattr(os, "execv", lambda path, argv: calls.append((path, argv)))
    return switch, calls


def test_restarts_itself_with_the_same_arguments(process):
    _, calls = process
    huge_pages.restart_with_huge_pages()
    assert calls == [(sys.executable, [sys.executable, "-m", "moe_jax.cli", "train"])]
    assert os.environ["GLIBC_TUNABLES"] == "glibc.malloc.hugetlb=1"
    # The process that was started leaves it at that.
    huge_pages.restart_with_huge_pages()
    assert len(calls) == 1


def test_keeps_other_tunables_and_the_users_own_choice(process, monkeypatch):
    _, calls = process
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.check=1")
    huge_pages.restart_with_huge_pages()
    assert os.environ["GLIBC_TUNABLES"] == "glibc.malloc.check=1:glibc.malloc.hugetlb=1"
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.hugetlb=0")
    huge_pages.restart_with_huge_pages()
    assert len(calls) == 1


@pytest.mark.parametrize("setting", ["[always] madvise never", "always madvise [never]"])
def test_not_where_the_kernel_has_decided(process, setting):
    switch, calls = process
    switch.write_text(setting)
    huge_pages.restart_with_huge_pages()
    assert not calls


def test_not_elsewhere_and_not_beside_an_accelerator(process, monkeypatch, tmp_path):
    switch, calls = process
    (tmp_path / "accel0").touch()
    monkeypatch.setattr(huge_pages, "_ACCELERATORS", (str(tmp_path / "accel*"),))
    monkeypatch.delenv("JAX_PLATFORMS")
    huge_pages.restart_with_huge_pages()
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.setattr(sys, "platform", "darwin")
    huge_pages.restart_with_huge_pages()
    monkeypatch.setattr(sys, "platform", "linux")
    switch.unlink()
    huge_pages.restart_with_huge_pages()
    assert not calls


def test_the_command_runs_and_keeps_its_exit_code():
    environment = {k: v for k, v in os.environ.items() if k != "GLIBC_TUNABLES"}
    run = subprocess.run(
        [sys.executable, "-m", "moe_jax.cli", "config", "sho"],
        env=environment | {"JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode != 0
    assert "sho" in run.stderr
