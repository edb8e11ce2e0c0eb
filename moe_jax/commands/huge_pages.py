"""Huge pages for memory on CPUs, which save a tenth to a quarter of a layer's time.

A step allocates and frees hundreds of megabytes. With pages of 4 KiB the kernel spends much of the
time on page faults; glibc's malloc uses pages of 2 MiB if `GLIBC_TUNABLES` says so when the process
starts. So the process restarts itself once with the variable set. The measurement is in
docs/results/routing.md.
"""

import glob
import os
import sys

_TUNABLE = "glibc.malloc.hugetlb"
_SWITCH = "/sys/kernel/mm/transparent_hugepage/enabled"
_ACCELERATORS = ("/dev/accel*", "/dev/vfio/*", "/dev/nvidia*")


def restart_with_huge_pages() -> None:
    """Restarts this process with huge pages, where that is possible and useful.

    That is on Linux, if the kernel leaves the choice to the process (`madvise`), the computation is
    on the CPU, and `GLIBC_TUNABLES` does not set the option already (`=0` turns it off).
    """
    tunables = os.environ.get("GLIBC_TUNABLES", "")
    if _TUNABLE in tunables or not _is_useful():
        return
    os.environ["GLIBC_TUNABLES"] = ":".join(filter(None, [tunables, f"{_TUNABLE}=1"]))
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _is_useful() -> bool:
    if not sys.platform.startswith("linux") or not sys.orig_argv or not sys.executable:
        return False
    on_cpu = os.environ.get("JAX_PLATFORMS") == "cpu"
    if not on_cpu and any(glob.glob(pattern) for pattern in _ACCELERATORS):
        return False
    try:
        with open(_SWITCH) as file:
            return "[madvise]" in file.read()
    except OSError:
        return False
