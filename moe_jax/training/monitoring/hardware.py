"""Peak FLOP/s of accelerators, utilisation and device memory.

FLOPs are counted by the rule of `moe_jax/flops.py`: matrix products only, a training step as three
forward passes, attention over the whole square. Recomputation to save memory does not count, so
utilisation is model FLOPs utilisation (MFU; PaLM, arXiv:2204.02311, appendix B).
"""

from collections.abc import Sequence

import jax

# Peak bf16 FLOP/s and JAX devices per chip, by prefix of `device_kind`; the longest matching prefix
# applies. `moe_jax/cost_model/chips.py` uses these peaks.
#
# TPU: Google's published figures, https://cloud.google.com/tpu/docs/v2 and so on up to v6e and
# tpu7x ("Peak compute per chip", bf16). v4 lite (v4i): Jouppi et al. 2021, "Ten Lessons From Three
# Generations Shaped Google's TPUv4i", table 1. On v2, v3 and TPU7x each of a chip's two cores is a
# JAX device; on v4 and v5p the two are one (megacore).
# GPU: NVIDIA's data sheets, dense (half of the figures with sparsity).
_PEAKS: dict[str, tuple[float, int]] = {
    "TPU v2": (45e12, 2),
    "TPU v3": (123e12, 2),
    "TPU v4": (275e12, 1),
    "TPU v4 lite": (138e12, 1),
    "TPU v5 lite": (197e12, 1),
    "TPU v5e": (197e12, 1),
    "TPU v5": (459e12, 1),
    "TPU v5p": (459e12, 1),
    "TPU v6 lite": (918e12, 1),
    "TPU v6e": (918e12, 1),
    "TPU7x": (2307e12, 2),  # Ironwood.
    "NVIDIA A100": (312e12, 1),
    "NVIDIA H100": (989e12, 1),  # SXM.
    "NVIDIA H100 PCIe": (756e12, 1),
    "NVIDIA H100 NVL": (835e12, 1),
}
_GIB = 1 << 30
# Names of metrics and the keys of `device.memory_stats()` that they are read from.
_MEMORY = {
    "memory/in_use_gib": "bytes_in_use",
    "memory/peak_gib": "peak_bytes_in_use",
    "memory/limit_gib": "bytes_limit",
}


def _entry(device_kind: str) -> tuple[float, int] | None:
    matching = [kind for kind in _PEAKS if _has_prefix(device_kind, kind)]
    return _PEAKS[max(matching, key=len)] if matching else None


def _has_prefix(device_kind: str, prefix: str) -> bool:
    """Returns whether a name starts with a prefix of whole words."""
    rest = device_kind.removeprefix(prefix)
    return device_kind.startswith(prefix) and rest[:1] in ("", " ", "-")


def peak_flops_of_chip(device_kind: str) -> float | None:
    """Returns the published peak bf16 FLOP/s of a chip; None if unknown.

    Args:
        device_kind: JAX's name of the device, `jax.devices()[0].device_kind`.
    """
    entry = _entry(device_kind)
    return entry[0] if entry else None


def peak_flops(device_kind: str) -> float | None:
    """Returns the peak bf16 FLOP/s of a JAX device: a chip, or one of its two cores.

    Args:
        device_kind: JAX's name of the device, `jax.devices()[0].device_kind`.

    Returns:
        FLOP/s; None for an unknown device, such as a CPU.
    """
    entry = _entry(device_kind)
    return entry[0] / entry[1] if entry else None


def devices_per_chip(device_kind: str) -> int | None:
    """Returns the number of JAX devices per chip, 2 if each core is one; None if unknown.

    Args:
        device_kind: JAX's name of the device, `jax.devices()[0].device_kind`.
    """
    entry = _entry(device_kind)
    return entry[1] if entry else None


def utilisation(flops_per_second: float, devices: int, peak: float | None) -> float | None:
    """Returns the model FLOPs utilisation of a run; None if the peak is unknown.

    Args:
        flops_per_second: over all devices, counted as in `moe_jax/flops.py`.
        devices: number of JAX devices.
        peak: peak FLOP/s of one device, from `peak_flops`.
    """
    return flops_per_second / (devices * peak) if peak and devices > 0 else None


def memory_metrics(devices: Sequence[jax.Device] | None = None) -> dict[str, float]:
    """Returns the memory statistics of the devices as metrics, in GiB.

    Args:
        devices: the devices of this process by default.

    Returns:
        `memory/in_use_gib`, `memory/peak_gib` (since the process started) and `memory/limit_gib`,
        each the maximum over the devices. Statistics that JAX does not provide are missing; a CPU
        has none.
    """
    figures: dict[str, float] = {}
    for device in jax.local_devices() if devices is None else devices:
        try:
            stats = device.memory_stats() or {}
        except (RuntimeError, NotImplementedError):  # XlaRuntimeError: not on this platform.
            continue
        for name, key in _MEMORY.items():
            if key in stats:
                figures[name] = max(figures.get(name, 0.0), stats[key] / _GIB)
    return figures
