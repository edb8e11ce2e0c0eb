"""Virtual CPU devices, to try out a mesh without accelerators."""

import os
import re

from moe_jax.errors import UserError

# Threads of XLA's pool. With eight virtual devices on few cores it would have eight, and jax 0.10
# then hangs in collectives when many steps are in flight.
_THREADS = 16


def prepare(devices: int | None, processes: int | None = None) -> None:
    """Sets the number of CPU devices of this process, before JAX starts.

    The thread pool is made large enough for them, and for those that the environment asks for
    (`XLA_FLAGS`, `JAX_NUM_CPU_DEVICES`), unless `NPROC` sets its size.

    Args:
        devices: number of CPU devices; None leaves it to the environment.
        processes: number of processes of this run, if there are several.

    Raises:
        UserError: if the number is not above 0, or the platform is not the CPU.
    """
    if devices is not None:
        if devices < 1:
            raise UserError(f"--cpu_devices must be above 0, not {devices}")
        platform = os.environ.get("JAX_PLATFORMS") or "cpu"
        if platform != "cpu":
            raise UserError(f"--cpu_devices is for the CPU, but JAX_PLATFORMS is {platform!r}")
        os.environ["JAX_PLATFORMS"] = "cpu"
    wanted = max(devices or _environment_devices(), processes or 1)
    if wanted > 1 and os.environ.get("JAX_PLATFORMS", "cpu") in ("", "cpu"):
        os.environ.setdefault("NPROC", str(max(_THREADS, 2 * wanted)))
    if devices is not None:
        import jax

        jax.config.update("jax_platforms", "cpu")
        try:
            jax.config.update("jax_num_cpu_devices", devices)
        except RuntimeError as error:
            raise UserError(f"--cpu_devices: {error}") from None


def _environment_devices() -> int:
    flag = r"--xla_force_host_platform_device_count=(\d+)"
    matches = re.findall(flag, os.environ.get("XLA_FLAGS", ""))
    return int(matches[-1] if matches else os.environ.get("JAX_NUM_CPU_DEVICES") or 1)
