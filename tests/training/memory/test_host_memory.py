"""Available memory of a machine and its control groups."""

import pytest

from moe_jax.training.memory.host_memory import available_bytes


def write(root, files):
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


MEMINFO = {"proc/meminfo": "MemTotal: 900 kB\nMemAvailable:  500 kB\nSwapFree: 100 kB\n"}


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, None),
        (MEMINFO, 600 << 10),
        # A group without a limit, below one with a limit, in version 2.
        (
            MEMINFO
            | {
                "proc/self/cgroup": "0::/job/step\n",
                "sys/fs/cgroup/job/step/memory.max": "max\n",
                "sys/fs/cgroup/job/step/memory.current": "7\n",
                "sys/fs/cgroup/job/memory.max": "300000\n",
                "sys/fs/cgroup/job/memory.current": "200000\n",
                "sys/fs/cgroup/job/memory.stat": "anon 5\ninactive_file 50000\n",
            },
            150000 + (100 << 10),
        ),
        # A container's own root, whose path is the host's, in version 1.
        (
            MEMINFO
            | {
                "proc/self/cgroup": "9:cpu:/docker/f\n8:memory:/docker/f\n0::/docker/f\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "1000\n",
                "sys/fs/cgroup/memory/memory.usage_in_bytes": "400\n",
                "sys/fs/cgroup/memory/memory.stat": "total_inactive_file 100\n",
            },
            700 + (100 << 10),
        ),
        # Of the machine there is less than the group may have.
        (
            MEMINFO
            | {
                "proc/self/cgroup": "0::/\n",
                "sys/fs/cgroup/memory.max": "900000000\n",
                "sys/fs/cgroup/memory.current": "1\n",
            },
            600 << 10,
        ),
    ],
)
def test_what_a_machine_has_left(files, expected, tmp_path):
    assert available_bytes(write(tmp_path, files)) == expected


def test_this_machine_has_something_left():
    found = available_bytes()
    assert found is None or found > 1 << 20
