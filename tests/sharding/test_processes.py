"""Collective operations of processes, with a single process."""

import pytest

from moe_jax.commands import cpu_devices
from moe_jax.errors import UserError
from moe_jax.sharding import processes


def test_differences_name_fact_value_process_and_host():
    same = {"jax": "0.10.2", "Data.seed": "0"}
    hosts = [("a", same), ("b", {**same, "Data.seed": "1"}), ("c", same)]
    assert processes.describe_differences([("a", same), ("b", dict(same))]) is None
    assert processes.describe_differences(hosts) == (
        "the processes are not the same: "
        "Data.seed is 0 in processes 0 (a), 2 (c), 1 in process 1 (b)"
    )
    assert "x is not set in process 0 (a), 1 in process 1 (b)" in processes.describe_differences(
        [("a", {}), ("b", {"x": "1"})]
    )


def test_facts_of_a_configuration():
    text = (
        "import x\n# Parameters for Data:\n# ====\nData.batch_size = 8\nData.task = \\\n"
        "    'text:/a/very/long/path'\nMesh.rules = \\\n    {'a': 1,\n     'b': 2}\n"
    )
    assert processes.config_bindings(text) == {
        "import x": "yes",
        "Data.batch_size": "8",
        "Data.task": "'text:/a/very/long/path'",
        "Mesh.rules": "{'a': 1, 'b': 2}",
    }


def test_one_process_needs_no_agreement():
    maximum = processes.DelayedMaximum()
    assert [maximum.update(value) for value in (0, 15, 0)] == [0, 15, 0]
    assert processes.gather("text") == ["text"]
    processes.check_consistent({"a": "b"})
    processes.barrier("name")
    assert processes.is_main()
    with pytest.raises(UserError, match=r"^mine$"), processes.propagate_errors():
        raise UserError("mine")


@pytest.mark.parametrize(
    ("devices", "processes_", "variables", "threads"),
    [
        (None, None, {}, None),
        (None, 2, {}, "16"),
        (None, None, {"XLA_FLAGS": "--xla_force_host_platform_device_count=8"}, "16"),
        (None, None, {"JAX_NUM_CPU_DEVICES": "32"}, "64"),
        (None, 2, {"JAX_PLATFORMS": "tpu"}, None),
        (None, 2, {"NPROC": "3"}, "3"),
    ],
)
def test_virtual_devices_get_threads(monkeypatch, devices, processes_, variables, threads):
    for name in ("NPROC", "XLA_FLAGS", "JAX_NUM_CPU_DEVICES"):
        # Set first, so that what `prepare` sets is taken back.
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    cpu_devices.prepare(devices, processes_)
    assert cpu_devices.os.environ.get("NPROC") == threads


def test_cpu_devices_are_for_the_cpu(monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "tpu")
    with pytest.raises(UserError, match="JAX_PLATFORMS is 'tpu'"):
        cpu_devices.prepare(4)
    with pytest.raises(UserError, match="must be above 0, not 0"):
        cpu_devices.prepare(0)
