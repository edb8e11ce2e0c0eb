"""Seconds of single instructions on a TPU chip, without waiting for others.

| instruction          | seconds                                                               |
|----------------------|-----------------------------------------------------------------------|
| matrix product       | the larger of FLOPs / (0.94 peak) and bytes / (0.8 HBM bandwidth)     |
| the same, with code  | the larger of the compiler's cycles / clock and FLOPs / peak          |
| kernel               | steps of its grid, and the largest of FLOPs / (0.78 peak), vector     |
|                      | operations / rate, and bytes / (0.8 HBM bandwidth)                    |
| gather, scatter      | the larger of rows / rate and bytes / (0.8 HBM bandwidth)             |
| sort                 | the larger of vector operations / rate and bytes / (0.8 HBM bandwidth)|
| to or from the host  | bytes / bandwidth of the link                                         |
| other                | bytes / (0.8 HBM bandwidth)                                           |

0.94 is the compiler's own estimate for large products on v4, v5e and v5p; 0.8 is the efficiency of
streaming kernels. The work of a kernel is read from its code (`moe_jax.hlo.mosaic`), products in
whole tiles of the matrix unit; where it cannot be read, its author's estimate counts. A vector unit
does 8 x 128 x 4 operations a cycle (https://jax-ml.github.io/scaling-book/tpus). A sort is bitonic.
`Prices.kernel` and `Prices.row` were fitted on published steps (docs/results/estimate.md);
`Prices.grid_step` is an assumption.
"""

import dataclasses
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence

from moe_jax.cost_model.chips import Chip
from moe_jax.cost_model.hbm_traffic import HbmTraffic
from moe_jax.hlo.flops import MatrixProduct
from moe_jax.hlo.row_accesses import RowAccess, Sort

# Name of a computation, and position of an instruction in it.
Location = tuple[str, int]

_VECTOR_LANES = 8 * 128 * 4
# Comparison and exchange of a pair, per element.
_SORT_OPERATIONS = 4


@dataclasses.dataclass(frozen=True)
class Prices:
    """Efficiencies and rates that no data sheet gives.

    Attributes:
        product: share of the peak that matrix products of the compiler reach.
        kernel: the same for those of kernels.
        hbm: share of the HBM bandwidth that streaming reaches.
        grid_step: seconds of a step of a kernel's grid, on one core.
        row: seconds of a row that is gathered or scattered, on one core.
    """

    product: float = 0.94
    kernel: float = 0.78
    hbm: float = 0.8
    grid_step: float = 0.35e-6
    row: float = 6e-9


PRICES = Prices()


class InstructionTimes:
    """Seconds of the instructions of a program by location."""

    def __init__(
        self,
        products: Sequence[MatrixProduct],
        traffic: Sequence[HbmTraffic],
        rows: Sequence[RowAccess | Sort],
        chip: Chip,
        prices: Prices,
    ):
        self._chip, self._prices = chip, prices
        # Of one device; a chip may have two.
        self._peak = chip.peak_flops / chip.devices
        self._hbm_bandwidth = chip.hbm_bandwidth / chip.devices
        self._cores = chip.cores // chip.devices
        self._traffic: Mapping[Location, HbmTraffic] = {
            (each.computation, each.position): each for each in traffic
        }
        self._products: defaultdict[Location, list[MatrixProduct]] = defaultdict(list)
        for product in products:
            self._products[product.computation, product.position].append(product)
        self._rows: defaultdict[Location, list[RowAccess | Sort]] = defaultdict(list)
        for row in rows:
            self._rows[row.computation, row.position].append(row)

    def is_product(self, location: Location) -> bool:
        """True if the instruction is or holds a matrix product or a kernel."""
        return any(each.flops or each.is_kernel for each in self._products.get(location, ()))

    def has_products(self, location: Location) -> bool:
        """True if it is or holds a product, of no FLOPs too."""
        return location in self._products

    def seconds(self, location: Location) -> float:
        """Returns the seconds of one execution."""
        if self.is_product(location):
            return self._product_seconds(location)
        rows = sum(self._row_seconds(each) for each in self._rows.get(location, ()))
        return max(rows, self.bytes_seconds(location))

    def bytes_seconds(self, location: Location) -> float:
        """Returns the seconds of its HBM traffic, or of its traffic with the host."""
        traffic = self._traffic.get(location)
        if traffic is None:
            return 0.0
        if traffic.is_host:
            return traffic.bytes / (self._chip.host_bandwidth / self._chip.devices)
        return self._streaming(traffic.bytes)

    def copies_over(self, location: Location) -> str:
        """Returns what an asynchronous copy occupies: a direction of the host's link, or `copies`.

        The link has two directions, `to_host` and `from_host`.
        """
        traffic = self._traffic.get(location)
        if traffic is None or not traffic.is_host:
            return "copies"
        return "to_host" if traffic.read > traffic.written else "from_host"

    def _streaming(self, size: float) -> float:
        return size / (self._prices.hbm * self._hbm_bandwidth)

    def _product_seconds(self, location: Location) -> float:
        products = self._products[location]
        kernels = [each for each in products if each.is_kernel]
        if kernels:
            return max(sum(map(self._kernel_seconds, kernels)), self.bytes_seconds(location))
        flops = sum(each.flops or 0.0 for each in products)
        traffic = self._traffic.get(location)
        cycles = traffic.estimated_cycles if traffic else None
        if cycles is not None and self._chip.clock is not None:
            return max(cycles / self._chip.clock, flops / self._peak, 0.0)
        at_peak = flops / (self._prices.product * self._peak)
        return max(at_peak, self.bytes_seconds(location))

    def _kernel_seconds(self, kernel: MatrixProduct) -> float:
        if kernel.work is None:
            return (kernel.flops or 0.0) / (self._prices.kernel * self._peak)
        work, share = kernel.work, kernel.occupancy
        cores = self._cores if work.is_parallel else 1
        on_cores = cores / self._cores
        busy = max(
            work.flops(self._chip.matrix_tile) / (self._prices.kernel * self._peak * on_cores),
            work.vector_operations / (self._vector_rate() * cores),
            self._streaming(work.bytes),
        )
        return share * (busy + work.steps * self._prices.grid_step / cores)

    def _row_seconds(self, access: RowAccess | Sort) -> float:
        if isinstance(access, RowAccess):
            return 0.0 if access.is_sorted else access.rows * self._prices.row / self._cores
        log = math.log2(max(access.length, 2))
        compared = access.elements * log * (log + 1) / 2 * _SORT_OPERATIONS
        return compared / (self._vector_rate() * self._cores)

    def _vector_rate(self) -> float:
        """Returns the vector operations a second of one core."""
        return _VECTOR_LANES * (self._chip.clock or 1.75e9)
