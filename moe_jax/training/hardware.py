"""What the hardware could do, and how much of it a run uses.

FLOPs are counted by the rule of `moe_jax/flops.py`: matrix products only, a training step as three
forward passes, attention over the whole square. Work that is done again to save memory does not
count, so a utilisation here is a model FLOPs utilisation (PaLM, arXiv:2204.02311, appendix B).
"""

from collections.abc import Sequence

import jax

# Peak bf16 FLOP/s of a chip, and JAX devices a chip, by the start of `device_kind`. The longest
# start that fits is taken. `moe_jax/cost_model/chips.py` takes its peaks from here.
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
# Names of the metrics by those of `device.memory_stats()`.
_MEMORY = {
    "memory/in_use_gib": "bytes_in_use",
    "memory/peak_gib": "peak_bytes_in_use",
    "memory/limit_gib": "bytes_limit",
}


def _entry(device_kind: str) -> tuple[float, int] | None:
    fitting = [kind for kind in _PEAKS if _starts(device_kind, kind)]
    return _PEAKS[max(fitting, key=len)] if fitting else None


def _starts(device_kind: str, kind: str) -> bool:
    """Returns whether a name begins with another and then ends or goes on with a new word."""
    return device_kind.startswith(kind) and device_kind[len(kind) : len(kind) + 1] in ("", " ", "-")


def peak_flops_of_chip(device_kind: str) -> float | None:
    """Returns the peak bf16 FLOP/s of a chip, as its maker publishes it; None if not known.

    Args:
        device_kind: JAX's name, `jax.devices()[0].device_kind`.
    """
    entry = _entry(device_kind)
    return entry[0] if entry else None


def peak_flops(device_kind: str) -> float | None:
    """Returns the peak bf16 FLOP/s of a JAX device: of a chip, or of one of its two cores.

    Args:
        device_kind: JAX's name, `jax.devices()[0].device_kind`.

    Returns:
        FLOP/s; None for what is not known, such as a CPU.
    """
    entry = _entry(device_kind)
    return entry[0] / entry[1] if entry else None


def devices_per_chip(device_kind: str) -> int | None:
    """Returns how many JAX devices a chip is: 2 where each core is one; None if not known.

    Args:
        device_kind: JAX's name, `jax.devices()[0].device_kind`.
    """
    entry = _entry(device_kind)
    return entry[1] if entry else None


def utilisation(flops_per_second: float, devices: int, peak: float | None) -> float | None:
    """Returns the share of the peak that a run reaches; None where the peak is not known.

    Args:
        flops_per_second: of the whole run, counted as in `moe_jax/flops.py`.
        devices: JAX devices of the run.
        peak: FLOP/s of one of them, from `peak_flops`.
    """
    return flops_per_second / (devices * peak) if peak and devices > 0 else None


def memory(devices: Sequence[jax.Device] | None = None) -> dict[str, float]:
    """Returns the memory of the fullest device, GiB, as metrics; nothing where JAX does not say.

    Args:
        devices: by default those of this process.

    Returns:
        `memory/in_use_gib`, `memory/peak_gib` (since the process began) and `memory/limit_gib`,
        each the largest over the devices, as far as they are known. A CPU knows none.
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
