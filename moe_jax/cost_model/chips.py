"""TPU chips, each figure with its source.

Per chip, from Google's pages (https://docs.cloud.google.com/tpu/docs/v4, v5e, v5p, v6e, tpu7x):
HBM bandwidth, the dimensions of the torus, the largest slice. Peaks are those of
`moe_jax/training/monitoring/hardware.py`, from the same pages. Figures that Google does not
publish:

- The bandwidth of an ICI link is that of one direction, by "How to Scale Your Model" (Google
  DeepMind, https://jax-ml.github.io/scaling-book/tpus). It is 0.9 of Google's, whose pages sum all
  links of a chip in both directions: v5e's 400 GB/s over 4 links are 50 GB/s each way.
- By the same book, the matrix units of v6e are 256 x 256, those of earlier chips 128 x 128, and a
  chip's link to its host has 16 GB/s, 32 GB/s from v6e on. tpu7x is taken to be like v6e.
- `hbm_limit` and `clock` are those of libtpu 0.0.52: the available HBM in its out-of-memory errors,
  and the clock of its estimated cycles. Those of tpu7x are from libtpu 0.0.42.1, whose errors have
  95.74 GiB for v5p, 31.25 GiB for v6e and the same for the others.
"""

import dataclasses

from moe_jax.errors import UserError, nearest
from moe_jax.training.monitoring import hardware

GIB = float(1 << 30)


@dataclasses.dataclass(frozen=True)
class Chip:
    """A TPU chip; all figures are per chip, not per core.

    Attributes:
        name: in `moe_jax` and libtpu.
        device_kind: JAX's name, `jax.devices()[0].device_kind`.
        hbm_limit: HBM that the compiler lets a program use, bytes.
        hbm_bandwidth: bytes/s.
        ici_link_bandwidth: of an inter-chip link in one direction, bytes/s.
        host_bandwidth: between HBM and the host's memory in one direction, bytes/s.
        torus_dimensions: 2 or 3; a chip has twice as many links.
        cores: TensorCores.
        matrix_tile: rows and columns of the matrix unit, to whose multiples kernels pad products.
        clock: cycles/s of the TensorCores; None if it is not published.
        largest_slice: chips of the largest slice.
        name_counts: unit of the number in Google's slice names, `cores` or `chips`.
        aliases: other names.
        config_name: libtpu's `chip_config_name` that gives the devices of real runs; None for
            its default.
    """

    name: str
    device_kind: str
    hbm_limit: float
    hbm_bandwidth: float
    ici_link_bandwidth: float
    host_bandwidth: float
    torus_dimensions: int
    cores: int
    matrix_tile: int
    clock: float | None
    largest_slice: int
    name_counts: str
    aliases: tuple[str, ...] = ()
    config_name: str | None = None

    @property
    def peak_flops(self) -> float:
        """Peak bf16 FLOP/s, as Google publishes it."""
        peak = hardware.peak_flops_of_chip(self.device_kind)
        assert peak is not None, self.device_kind
        return peak

    @property
    def devices(self) -> int:
        """JAX devices of one chip: 1, or 2 where each core is a device."""
        devices = hardware.devices_per_chip(self.device_kind)
        assert devices is not None, self.device_kind
        return devices

    @property
    def hbm_limit_per_device(self) -> float:
        """HBM that a program can use on one JAX device, bytes."""
        return self.hbm_limit / self.devices


CHIPS = (
    Chip(
        name="v4",
        device_kind="TPU v4",
        hbm_limit=30.75 * GIB,
        hbm_bandwidth=1200e9,
        ici_link_bandwidth=45e9,
        host_bandwidth=16e9,
        torus_dimensions=3,
        cores=2,
        matrix_tile=128,
        clock=1.05e9,
        largest_slice=4096,
        name_counts="cores",
        config_name="megacore",  # Without it each core is a device.
    ),
    Chip(
        name="v5e",
        device_kind="TPU v5 lite",
        hbm_limit=15.75 * GIB,
        hbm_bandwidth=819e9,
        ici_link_bandwidth=45e9,
        host_bandwidth=16e9,
        torus_dimensions=2,
        cores=1,
        matrix_tile=128,
        clock=1.5e9,
        largest_slice=256,
        name_counts="chips",
        aliases=("v5litepod",),
    ),
    Chip(
        name="v5p",
        device_kind="TPU v5",
        hbm_limit=95.73 * GIB,
        hbm_bandwidth=2765e9,
        ici_link_bandwidth=90e9,
        host_bandwidth=16e9,
        torus_dimensions=3,
        cores=2,
        matrix_tile=128,
        clock=1.75e9,
        largest_slice=6144,  # Of a pod of 8,960.
        name_counts="cores",
    ),
    Chip(
        name="v6e",
        device_kind="TPU v6 lite",
        hbm_limit=31.24 * GIB,
        hbm_bandwidth=1638e9,
        ici_link_bandwidth=90e9,
        host_bandwidth=32e9,
        torus_dimensions=2,
        cores=1,
        matrix_tile=256,
        clock=1.75e9,
        largest_slice=256,
        name_counts="chips",
        aliases=("trillium",),
    ),
    Chip(
        name="tpu7x",
        device_kind="TPU7x",
        hbm_limit=2 * 94.75 * GIB,
        hbm_bandwidth=7380e9,
        ici_link_bandwidth=90e9,
        host_bandwidth=32e9,
        torus_dimensions=3,
        cores=2,
        matrix_tile=256,
        clock=None,
        largest_slice=9216,
        name_counts="cores",
        aliases=("ironwood",),
    ),
)
_BY_NAME = {name: chip for chip in CHIPS for name in (chip.name, *chip.aliases)}


def get_chip(name: str) -> Chip:
    """Returns the chip of a name or alias, ignoring case.

    Raises:
        UserError: for an unknown name.
    """
    chip = _BY_NAME.get(name.lower())
    if chip is None:
        raise UserError(
            f"no TPU chip is called {name!r}; known: {', '.join(_BY_NAME)}."
            + nearest(name, _BY_NAME)
        )
    return chip
