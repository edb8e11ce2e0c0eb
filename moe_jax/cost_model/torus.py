"""Time of a collective on a torus of chips, as a lower and an upper estimate.

A group of n devices is a grid in the torus. Along dimension d it has m chips, s apart, so that s
groups share the links of a ring. With one-way bandwidth B of a link, both directions being used:

| kind                       | lower: link bandwidth             | upper: one axis, as in XLA    |
|----------------------------|-----------------------------------|-------------------------------|
| all-gather, reduce-scatter | bytes (n - 1) / n / sum_d 2 B / s | only the widest dimension     |
| all-reduce                 | twice that                        | the same                      |
| all-to-all                 | max_d bytes m s / (8 B)           | twice that                    |
| collective-permute         | bytes hops / B                    | the same                      |

The all-to-all is bound by the bisection of a ring. A line has half the bandwidth of a ring. Two
devices of one chip share its links: the traffic of all their groups uses them, but what two devices
of one group gather or reduce is sent once. Links between slices are not modelled. The second column
is the cost model of XLA's latency-hiding scheduler. Neither was measured on hardware.
"""

import dataclasses
from collections import Counter
from collections.abc import Sequence

import numpy as np

from moe_jax.hlo.collectives import Collective


@dataclasses.dataclass(frozen=True)
class Torus:
    """Chips and the links between them.

    Attributes:
        shape: chips along each dimension.
        wraps: whether each dimension is a ring.
        bandwidth: of a link, one way, bytes a second.
        coordinates: of the devices in the order of the program's partitions, [devices, dimensions].
        devices_per_chip: JAX devices of one chip, which share its links.
    """

    shape: tuple[int, ...]
    wraps: tuple[bool, ...]
    bandwidth: float
    coordinates: np.ndarray
    devices_per_chip: int = 1

    def spanned_dimensions(self, group: Sequence[int]) -> list[tuple[int, float]]:
        """Returns the chips and the bandwidth (bytes/s) of every dimension that a group spans.

        Args:
            group: partitions.
        """
        places = self.coordinates[list(group)]
        found = []
        for dimension, size in enumerate(self.shape):
            values = np.unique(places[:, dimension])
            if len(values) < 2:
                continue
            stride = int(np.diff(values).min())
            is_ring = self.wraps[dimension] and stride * len(values) == size and size > 2
            directions = 2 if is_ring else 1
            found.append((len(values), directions * self.bandwidth / stride))
        return found

    def seconds(self, kind: str, size: float, group: Sequence[int]) -> tuple[float, float]:
        """Returns the lower and the upper estimate of a collective's seconds.

        Args:
            kind: one of `COLLECTIVE_KINDS`.
            size: payload bytes of a device, as `moe_jax.hlo.collectives` defines them.
            group: the partitions of one group; all groups run concurrently.
        """
        dimensions = self.spanned_dimensions(group)
        if not dimensions:
            return 0.0, 0.0
        chips = len(np.unique(self.coordinates[list(group)], axis=0))
        on_chip = min(self.devices_per_chip, len(group) // chips)  # Devices of the group.
        n = len(group) // on_chip
        if kind in ("all-to-all", "ragged-all-to-all"):
            # Half of the payload of a ring's chips crosses its bisection, which is two links.
            chip_bytes = size * self.devices_per_chip
            least = max(chip_bytes * length / (4 * bandwidth) for length, bandwidth in dimensions)
            return least, 2 * least
        once = size * self.devices_per_chip / on_chip * (n - 1) / n
        least = once / sum(bandwidth for _, bandwidth in dimensions)
        if kind == "all-reduce":
            return 2 * least, 2 * least
        return least, once / max(bandwidth for _, bandwidth in dimensions)

    def collective_seconds(self, collective: Collective) -> tuple[float, float]:
        """Returns the lower and the upper estimate of one execution of a collective, seconds."""
        size, members = collective.payload_bytes, collective.groups.members
        if collective.groups.is_permutation:
            pairs = [(int(source), int(target)) for source, target in members]
            return (self.permute_seconds(size, pairs),) * 2
        group = [int(device) for device in members[0] if device >= 0]
        return self.seconds(collective.kind, size, group)

    def permute_seconds(self, size: float, pairs: Sequence[tuple[int, int]]) -> float:
        """Returns the seconds of a collective-permute: its longest path, one link at a time."""
        longest, sent = 0, Counter[tuple[int, ...]]()
        for source, target in pairs:
            direct = np.abs(self.coordinates[source] - self.coordinates[target])
            wrapped = np.where(self.wraps, np.array(self.shape) - direct, direct)
            hops = int(np.minimum(direct, wrapped).sum())
            longest = max(longest, hops)
            sent[tuple(self.coordinates[source])] += hops > 0
        return size * longest * max(sent.values(), default=0) / self.bandwidth
