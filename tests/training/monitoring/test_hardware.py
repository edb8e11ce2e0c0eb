"""Peaks, utilisation and memory, against published figures and with fake devices."""

import jax
import pytest

from moe_jax.training.monitoring.hardware import (
    devices_per_chip,
    memory_metrics,
    peak_flops,
    peak_flops_of_chip,
    utilisation,
)


class Device:
    """A fake device with the given statistics."""

    def __init__(self, stats):
        self.stats = stats

    def memory_stats(self):
        if isinstance(self.stats, Exception):
            raise self.stats
        return self.stats


@pytest.mark.parametrize(
    ("kind", "teraflops"),
    [
        ("TPU v2", 45),
        ("TPU v3", 123),
        ("TPU v4", 275),
        ("TPU v5 lite", 197),
        ("TPU v5e", 197),
        ("TPU v5", 459),
        ("TPU v5p", 459),
        ("TPU v6 lite", 918),
        ("TPU7x", 2307),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
    ],
)
def test_published_peaks_of_chips(kind, teraflops):
    assert peak_flops_of_chip(kind) == teraflops * 1e12


@pytest.mark.parametrize(
    ("kind", "teraflops"), [("TPU v3", 61.5), ("TPU v4", 275), ("TPU7x", 1153.5)]
)
def test_a_device_is_a_core_where_a_chip_is_two_devices(kind, teraflops):
    assert peak_flops(kind) == teraflops * 1e12
    assert peak_flops_of_chip(kind) == teraflops * 1e12 * devices_per_chip(kind)


@pytest.mark.parametrize("kind", ["cpu", "TPU v50", "TPU v9", "NVIDIA GeForce GTX 1080", ""])
def test_what_is_not_known_has_no_peak(kind):
    assert peak_flops(kind) is None
    assert peak_flops_of_chip(kind) is None
    assert devices_per_chip(kind) is None


def test_peaks_agree_with_those_that_jax_knows():
    """JAX rounds some figures for its own tables: to within 2%."""
    tpu_info = pytest.importorskip("jax._src.pallas.mosaic.tpu_info")
    if not hasattr(tpu_info, "get_tpu_info_for_chip"):
        pytest.skip("this JAX has no such table")
    for kind in ("TPU v4", "TPU v5 lite", "TPU v5", "TPU v6 lite", "TPU7x"):
        version = tpu_info.chip_version_from_device_kind(kind)
        info = tpu_info.get_tpu_info_for_chip(version, 1)
        cores = {"TPU v4": 2, "TPU v5": 2, "TPU7x": 2}.get(kind, 1)
        assert info.bf16_ops_per_second * cores == pytest.approx(peak_flops_of_chip(kind), rel=0.02)


def test_utilisation_by_hand():
    # 4 v5e chips at 98.5 TFLOP/s each.
    assert utilisation(394e12, 4, peak_flops("TPU v5 lite")) == pytest.approx(0.5)
    assert utilisation(1e12, 1, None) is None


def test_memory_is_that_of_the_fullest_device():
    one = {"bytes_in_use": 1 << 30, "peak_bytes_in_use": 3 << 30, "bytes_limit": 16 << 30}
    two = {"bytes_in_use": 2 << 30, "peak_bytes_in_use": 2 << 30, "bytes_limit": 16 << 30}
    assert memory_metrics([Device(one), Device(two)]) == {
        "memory/in_use_gib": 2.0,
        "memory/peak_gib": 3.0,
        "memory/limit_gib": 16.0,
    }


def test_memory_that_is_not_known_is_left_out():
    assert memory_metrics([Device(None), Device(RuntimeError("no"))]) == {}
    assert memory_metrics([Device({"bytes_in_use": 1 << 29})]) == {"memory/in_use_gib": 0.5}


def test_a_cpu_says_nothing():
    assert memory_metrics(jax.local_devices(backend="cpu")) == {}
