"""The parts of runs of several processes that need no second process."""

import contextlib
import socket
import threading

import jax
import numpy as np
import pytest

from moe_jax.commands import cpu_devices
from moe_jax.errors import UserError
from moe_jax.sharding import processes, rendezvous
from moe_jax.sharding.placement import place_rows, process_rows


def call_roll(timeout, *members):
    """Runs `meet` for (process, processes) in threads; returns what each got or raised."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    results = [None] * len(members)

    def run(slot, process, count):
        try:
            results[slot] = rendezvous.meet(address, count, process, timeout)
        except UserError as error:
            results[slot] = str(error)

    threads = [threading.Thread(target=run, args=(i, *m)) for i, m in enumerate(members)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return results


def test_everybody_comes():
    host = socket.gethostname()
    assert call_roll(20, (2, 3), (0, 3), (1, 3)) == [[host] * 3] * 3


def test_all_that_came_learn_who_did_not():
    found = call_roll(1, (0, 4), (2, 4))
    assert found[0] == found[1]
    assert "processes 1, 3 are missing: 2 of 4 processes came within 1 seconds" in found[0]


def test_a_missing_coordinator_is_named():
    (found,) = call_roll(0.5, (1, 2))
    assert "process 0 is missing: it did not answer process 1" in found
    assert "within 0.5 seconds" in found


@pytest.mark.parametrize(
    ("members", "message"),
    [
        (((0, 2), (1, 3)), "was told of 3 processes, process 0"),
        (((0, 3), (1, 3), (1, 3)), "two processes are number 1"),
        (((0, 2), (5, 2)), "there is no process 5"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(members, message):
    found = call_roll(5, *members)
    assert message in found[0]
    assert message in found[1] or message in found[-1]


STRANGERS = {
    "another protocol": b"GET / HTTP/1.0\r\n\r\n",
    "no text": b"\xff\xfe\x00\n",
    "brackets": b"[" * 4000 + b"\n",
    "other JSON": b'{"process": 1, "processes": 2}\n',
    "no number": b'{"magic": "moe-jax roll call", "process": true, "processes": 2}\n',
    "no end": b"x" * 100_000,
    "nothing": b"",
}


@pytest.mark.parametrize("stranger", ["leaves", "stays"])
def test_strangers_neither_end_the_roll_call_nor_hold_it_up(stranger, monkeypatch):
    """Those that stay say no more, which must not keep the others waiting."""
    monkeypatch.setattr(rendezvous, "_MOST_WAITING", 4)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    found = []
    thread = threading.Thread(
        target=lambda: found.append(rendezvous.meet(f"127.0.0.1:{port}", 2, 0, 20))
    )
    thread.start()
    open_ones = []
    for text in STRANGERS.values():
        open_ones.append(connected(port))
        # It may be dropped while it still talks.
        with contextlib.suppress(OSError):
            open_ones[-1].sendall(text)
        if stranger == "leaves":
            open_ones[-1].close()
    rendezvous.meet(f"127.0.0.1:{port}", 2, 1, 20)
    thread.join(20)
    assert found == [[socket.gethostname()] * 2]
    for connection in open_ones:
        connection.close()


def connected(port):
    """Returns a connection to a port that something is about to listen on."""
    for _ in range(400):
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=5)
        except OSError:
            threading.Event().wait(0.02)
    raise AssertionError("nobody listens")


def test_a_stranger_that_keeps_talking_is_dropped(monkeypatch):
    """Process 0 gives up in time, though somebody sends a byte now and then."""
    monkeypatch.setattr(rendezvous, "_PATIENCE", 0.2)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    found = []

    def zero():
        try:
            rendezvous.meet(f"127.0.0.1:{port}", 2, 0, 2)
        except UserError as error:
            found.append(str(error))

    thread = threading.Thread(target=zero)
    thread.start()
    dropped = False
    with connected(port) as stranger:
        for _ in range(100):
            try:
                stranger.sendall(b"x")
            except OSError:
                dropped = True
                break
            threading.Event().wait(0.02)
    thread.join(20)
    assert dropped
    assert "process 1 is missing" in found[0]


def test_a_coordinator_that_answers_nonsense_is_one_line():
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer():
            with contextlib.suppress(OSError):
                while True:
                    with server.accept()[0] as caller:
                        caller.recv(4096)
                        caller.sendall(b"[" * 100_000 + b"\n")

        threading.Thread(target=answer, daemon=True).start()
        with pytest.raises(UserError, match="process 0 is missing") as error:
            rendezvous.meet(f"127.0.0.1:{server.getsockname()[1]}", 2, 1, 0.5)
        assert "\n" not in str(error.value)


def test_some_flags_without_the_others_are_refused():
    with pytest.raises(UserError, match="--num_processes and --process_id is not given"):
        processes.initialize("host:1")
    with pytest.raises(UserError, match="must be from 0 to"):
        processes.initialize("host:1", 2, 2)


SRUN = {
    "SLURM_JOB_ID": "4096",
    "SLURM_NTASKS": "4",
    "SLURM_PROCID": "2",
    "SLURM_LOCALID": "0",
    "SLURM_STEP_NODELIST": "tpu[003-006]",
}


@pytest.mark.parametrize(
    ("variables", "kind"),
    [
        ({}, None),
        (SRUN, "slurm"),
        ({**SRUN, "SLURM_NTASKS": "1"}, None),
        # The shell of an sbatch script: not started by srun.
        ({k: v for k, v in SRUN.items() if k != "SLURM_STEP_NODELIST"}, None),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1", "JOB_COMPLETION_INDEX": "3"}, "kubernetes"),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, None),
    ],
)
def test_the_environment_is_recognised(variables, kind):
    assert processes.environment({"JAX_PLATFORMS": "cpu", **variables}) == kind


def test_slurm_says_where_to_meet(monkeypatch):
    for name, value in SRUN.items():
        monkeypatch.setenv(name, value)
    cluster = processes._detect("slurm", 1)
    # jax's rule: the step's first node, and a port of the last 4096 by the job's number.
    assert cluster == processes.Cluster("tpu003:61440", 4, 2, [0])


def test_a_tpu_is_recognised_unless_the_cpu_is_asked_for(monkeypatch, tmp_path):
    (tmp_path / "accel0").write_text("")
    monkeypatch.setattr(processes, "_TPU_DEVICES", (f"{tmp_path}/accel*",))
    assert processes.environment({}) == "tpu"
    assert processes.environment({"JAX_PLATFORMS": "cpu"}) is None


def test_differences_name_fact_value_process_and_host():
    same = {"jax": "0.10.2", "Data.seed": "0"}
    hosts = [("a", same), ("b", {**same, "Data.seed": "1"}), ("c", same)]
    assert processes.difference([("a", same), ("b", dict(same))]) is None
    assert processes.difference(hosts) == (
        "the processes are not the same: "
        "Data.seed is 0 in processes 0 (a), 2 (c), 1 in process 1 (b)"
    )
    assert "x is not set in process 0 (a), 1 in process 1 (b)" in processes.difference(
        [("a", {}), ("b", {"x": "1"})]
    )


def test_facts_of_a_configuration():
    text = (
        "import x\n# Parameters for Data:\n# ====\nData.batch_size = 8\nData.task = \\\n"
        "    'text:/a/very/long/path'\nMesh.rules = \\\n    {'a': 1,\n     'b': 2}\n"
    )
    assert processes.config_facts(text) == {
        "import x": "yes",
        "Data.batch_size": "8",
        "Data.task": "'text:/a/very/long/path'",
        "Mesh.rules": "{'a': 1, 'b': 2}",
    }


def test_one_process_needs_no_agreement():
    agreement = processes.Agreement()
    assert [agreement.ask(value) for value in (0, 15, 0)] == [0, 15, 0]
    assert processes.gather("text") == ["text"]
    processes.check_same({"a": "b"})
    processes.barrier("name")
    assert processes.is_main()
    with pytest.raises(UserError, match=r"^mine$"), processes.together():
        raise UserError("mine")


class FakeDevice:
    def __init__(self, process_index):
        self.process_index = process_index


class FakeSharding:
    """Rows over devices, in an order in which a process's devices are not neighbours."""

    def __init__(self, *order):
        self._order = order

    def devices_indices_map(self, shape):
        size = shape[0] // len(self._order)
        return {
            FakeDevice(p): (slice(i * size, (i + 1) * size),) for i, p in enumerate(self._order)
        }


def test_the_rows_of_processes():
    assert process_rows(FakeSharding(0, 0, 1, 1), 8) == {0: (0, 4), 1: (4, 8)}
    assert process_rows(FakeSharding(0, 1, 0, 1), 8) == {0: (0, 6), 1: (2, 8)}


def test_rows_become_global_arrays():
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    rows = np.arange(12).reshape(4, 3)
    placed = place_rows({"a": rows, "b": None}, sharding, 4, 0)
    np.testing.assert_array_equal(placed["a"], rows)


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
