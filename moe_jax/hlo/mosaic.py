"""Work of Mosaic kernels (Pallas on TPU), read from the code that a program carries of them.

A kernel is a function that runs for every point of a grid. What it does at a point is counted:
matrix products with their shapes, elementwise operations, and the blocks that move between HBM and
VMEM. Branches whose conditions follow from the position in the grid are evaluated, for the whole
grid at once; those that depend on data take the share that `_data_dependent_share` says.
"""

import base64
import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

_PREFIX = "stable_mosaic."
# Of grids with more points, every block is taken to move at every point.
_MOST_POINTS = 1 << 24
_DYNAMIC = np.iinfo(np.int64).min

# Operations on each element of the result. Others take one; those of `_FREE` move or name data.
_OPERATIONS = {
    "math.exp": 4,
    "math.exp2": 3,
    "math.log": 4,
    "math.log1p": 4,
    "math.tanh": 6,
    "math.powf": 8,
    "math.rsqrt": 2,
    "math.sqrt": 3,
    "arith.divf": 4,
    "arith.remf": 6,
    "tpu.reciprocal": 2,
}
_FREE = ("shape_cast", "broadcast", "load", "store", "concatenate", "constant", "bitcast", "slice")

_COMPARISONS: tuple[Callable[..., Any], ...] = (
    np.equal,
    np.not_equal,
    np.less,
    np.less_equal,
    np.greater,
    np.greater_equal,
    np.less,
    np.less_equal,
    np.greater,
    np.greater_equal,
)
_SCALAR: dict[str, Callable[..., Any]] = {
    "arith.addi": np.add,
    "arith.subi": np.subtract,
    "arith.muli": np.multiply,
    "arith.divsi": lambda a, b: np.trunc(a / np.where(b == 0, 1, b)).astype(np.int64),
    "arith.floordivsi": lambda a, b: np.floor_divide(a, np.where(b == 0, 1, b)),
    "arith.remsi": lambda a, b: np.fmod(a, np.where(b == 0, 1, b)),
    "arith.andi": np.bitwise_and,
    "arith.ori": np.bitwise_or,
    "arith.xori": np.bitwise_xor,
    "arith.minsi": np.minimum,
    "arith.maxsi": np.maximum,
    "arith.select": lambda c, a, b: np.where(c != 0, a, b),
    "arith.extui": lambda a: a,
    "arith.extsi": lambda a: a,
    "arith.trunci": lambda a: a,
    "arith.index_cast": lambda a: a,
}


@dataclasses.dataclass(frozen=True)
class KernelProduct:
    """Matrix products of one shape, `[m, k] x [k, n]`.

    Attributes:
        m: rows.
        k: contracted.
        n: columns.
        dtype: of the operands, with MLIR's name.
        executions: in one execution of the kernel.
    """

    m: int
    k: int
    n: int
    dtype: str
    executions: float

    def flops(self, tile: int = 1) -> float:
        """Returns the FLOPs, with `k` and `n` rounded up to tiles of the matrix unit."""
        k, n = (math.ceil(size / tile) * tile for size in (self.k, self.n))
        return 2.0 * self.m * k * n * self.executions


@dataclasses.dataclass(frozen=True)
class KernelWork:
    """Work of one execution of a kernel.

    Attributes:
        steps: points of the grid.
        is_parallel: whether the grid has a dimension that two cores can share.
        products: matrix products.
        vector_operations: elementwise operations of single elements.
        bytes: that blocks move between HBM and VMEM.
    """

    steps: float
    is_parallel: bool
    products: tuple[KernelProduct, ...]
    vector_operations: float
    bytes: float

    def flops(self, tile: int = 1) -> float:
        """Returns the FLOPs of all products, whole tiles of the matrix unit counted."""
        return sum(product.flops(tile) for product in self.products)


@functools.lru_cache(maxsize=256)
def kernel_work(body: str, arrays: tuple[tuple[int, ...], ...] = ()) -> KernelWork | None:
    """Reads a kernel.

    Args:
        body: MLIR bytecode in base64, as the backend configuration of a custom call has it.
        arrays: dimensions of its operands and results, in order.

    Returns:
        Its work, or None if it cannot be read, as with another version of Mosaic.
    """
    try:
        from jax.extend.mlir import ir
        from jax.interpreters.mlir import make_ir_context
        from jaxlib.mosaic.python import tpu
    except ImportError:
        return None
    context = make_ir_context()
    context.allow_unregistered_dialects = True
    tpu.register_dialect(context)
    try:
        with context:
            module = ir.Module.parse(base64.b64decode(body))
            functions = [each.operation for each in module.body.operations]
            grids = [each for each in functions if "iteration_bounds" in each.attributes]
            main = next(iter(grids + functions), None)
            return None if main is None else _Kernel(main, functions, arrays).work()
    except Exception:  # Of whatever Mosaic will be: its author's estimate counts then.
        return None


@dataclasses.dataclass(frozen=True)
class _Value:
    """A scalar at every point of the grid.

    Attributes:
        at: an array that broadcasts to the grid: its values, or, of a scalar that is read from a
            table, its place in the table, from 0 to 1.
        is_known: whether `at` are its values.
    """

    at: np.ndarray
    is_known: bool = True


class _Kernel:
    def __init__(self, main: Any, functions: Sequence[Any], arrays: Sequence[tuple[int, ...]]):
        self.main, self.arrays = main, arrays
        self.functions = {_text(each.attributes["sym_name"]): each for each in functions}
        self.arguments = list(main.regions[0].blocks[0].arguments)
        self.bounds = self._bounds()
        self.values: dict[Any, _Value] = {}
        self.tables: dict[Any, tuple[int, ...]] = {}
        self.products: list[KernelProduct] = []
        self.vector_operations = 0.0

    def work(self) -> KernelWork:
        block = self.main.regions[0].blocks[0]
        self._set_grid(self.arguments)
        self._block(block, np.ones((1,) * len(self.bounds)))
        semantics = _list(self.main, "dimension_semantics")
        return KernelWork(
            steps=float(math.prod(self.bounds)),
            is_parallel=any(
                "parallel" in str(each) and bound > 1
                for each, bound in zip(semantics, self.bounds, strict=False)
            ),
            products=tuple(self.products),
            vector_operations=self.vector_operations,
            bytes=self._bytes(),
        )

    def _bounds(self) -> list[int]:
        """Returns the extents of the grid; of one that data decides the longest table's length."""
        bounds = [int(each) for each in _list(self.main, "iteration_bounds")]
        tables = [_shape(each.type) for each in self.arguments if "smem" in str(each.type)]
        longest = max((shape[0] for shape in tables if len(shape) == 1), default=1)
        return [longest if each == _DYNAMIC else each for each in bounds]

    def _set_grid(self, arguments: Sequence[Any]) -> None:
        rank = len(self.bounds)
        for axis, bound in enumerate(self.bounds):
            shape = [bound if other == axis else 1 for other in range(rank)]
            self.values[arguments[axis]] = _Value(np.arange(bound).reshape(shape))

    def _block(self, block: Any, weight: np.ndarray) -> None:
        """Counts the operations of a block that runs `weight` times at each point."""
        for each in block.operations:
            operation = each.operation
            name = operation.name.removeprefix(_PREFIX)
            if name == "scf.if":
                condition = self._condition(operation)
                shares = (condition, 1 - condition)
                for region, share in zip(operation.regions, shares, strict=False):
                    self._regions([region], weight * share)
            elif name == "scf.for":
                self._regions(operation.regions, weight * self._trips(operation))
            elif len(operation.regions):
                self._regions(operation.regions, weight)
            else:
                self._scalar(operation, name)
                self._count(operation, name, weight)

    def _regions(self, regions: Sequence[Any], weight: np.ndarray) -> None:
        for region in regions:
            for block in region.blocks:
                if weight.any():
                    self._block(block, weight)

    def _condition(self, operation: Any) -> np.ndarray:
        condition = operation.operands[0]
        value = self.values.get(condition)
        if value is not None and value.is_known:
            return (value.at != 0).astype(float)
        return np.full((1,) * len(self.bounds), self._data_dependent_share(condition))

    def _data_dependent_share(self, condition: Any) -> float:
        """Returns the share of points at which a condition that depends on data holds.

        A condition that is read from a square table of blocks is that of causal attention, which
        has the blocks up to the diagonal. Others hold everywhere.
        """
        shape = self.tables.get(condition, ())
        if len(shape) >= 2 and shape[-1] > 1:
            return (shape[-1] + 1) / (2 * shape[-1])
        return 1.0

    def _trips(self, operation: Any) -> np.ndarray:
        found = [self.values.get(operation.operands[i]) for i in range(3)]
        if any(each is None or not each.is_known for each in found):
            return np.ones((1,) * len(self.bounds))
        start, stop, step = (each.at for each in found if each is not None)
        return np.maximum(np.ceil((stop - start) / np.maximum(step, 1)), 0.0)

    def _scalar(self, operation: Any, name: str) -> None:
        """Evaluates an operation on integers."""
        if len(operation.results) != 1 or not _is_scalar(operation.results[0].type):
            return
        result = operation.results[0]
        if name == "arith.constant":
            text = str(operation.attributes["value"]).partition(" : ")[0]
            text = {"true": "1", "false": "0"}.get(text, text)
            if text.lstrip("-").isdigit():
                self.values[result] = _Value(np.array(int(text)))
            return
        operands = [self.values.get(each) for each in operation.operands]
        for each in operation.operands:
            if each in self.tables and result not in self.tables:
                self.tables[result] = self.tables[each]
        if name == "memref.load":
            table = _shape(operation.operands[0].type)
            self.tables[result] = table
            if table and operands[-1] is not None:
                self.values[result] = _Value(operands[-1].at / table[-1], is_known=False)
            return
        known = [each for each in operands if each is not None]
        read = [each for each in known if not each.is_known]
        at = [each.at for each in known]
        if read:  # Still a place in the table.
            self.values[result] = max(read, key=lambda each: each.at.size)
        elif len(known) < len(operands):
            return
        elif name == "arith.cmpi":
            compare = _COMPARISONS[_integer(operation, "predicate")]
            self.values[result] = _Value(compare(*at).astype(np.int64))
        elif name in _SCALAR:
            self.values[result] = _Value(np.asarray(_SCALAR[name](*at)))

    def _count(self, operation: Any, name: str, weight: np.ndarray) -> None:
        times = float(weight.mean()) * math.prod(self.bounds)
        if name in ("tpu.matmul", "vector.contract"):
            left, shape = operation.operands[0].type, _shape(operation.results[0].type)
            k = math.prod(_shape(left)) // max(math.prod(shape[:-1]), 1)
            rows = math.prod(shape[:-1])
            self.products.append(KernelProduct(rows, k, shape[-1], _dtype(left), times))
        elif name in ("vector.multi_reduction", "tpu.all_reduce"):
            self.vector_operations += times * math.prod(_shape(operation.operands[0].type))
        elif not name.endswith(_FREE) and len(operation.results) == 1:
            result = operation.results[0].type
            if str(result).startswith("vector"):
                self.vector_operations += (
                    times * math.prod(_shape(result)) * _OPERATIONS.get(name, 1)
                )

    def _bytes(self) -> float:
        """Returns the bytes of blocks, each of which moves when its place in the array changes."""
        total = 0.0
        windows = _list(self.main, "window_params")
        first = len(self.bounds) + _integer(self.main, "scalar_prefetch")
        arrays = [()] * (len(windows) - len(self.arrays)) + list(self.arrays[-len(windows) :])
        for argument, window, array in zip(self.arguments[first:], windows, arrays, strict=False):
            transform = _window_function(str(window))
            if transform in self.functions:
                block = _shape(argument.type)
                size = math.prod(block) * _itemsize(_dtype(argument.type))
                total += size * self._moves(self.functions[transform], block, array)
        return total

    def _moves(self, transform: Any, block: tuple[int, ...], array: tuple[int, ...]) -> int:
        """Returns how often a block's place changes in the order of the grid.

        A place that is read from a table is taken to grow with the place in the table: tables of
        tiles and of their experts are sorted.
        """
        body = transform.regions[0].blocks[0]
        if math.prod(self.bounds) > _MOST_POINTS:
            return math.prod(self.bounds)
        self._set_grid(list(body.arguments))
        changed = np.zeros(math.prod(self.bounds), bool)
        changed[0] = True
        for each in body.operations:
            operation = each.operation
            name = operation.name.removeprefix(_PREFIX)
            if name != "func.return":
                self._scalar(operation, name)
                continue
            for axis, place in enumerate(operation.operands):
                value = self.values.get(place)
                if value is None:
                    continue
                at = np.broadcast_to(value.at, self.bounds).reshape(-1)
                if not value.is_known:
                    is_alike = len(array) == len(block)
                    blocks = math.ceil(array[axis] / block[axis]) if is_alike else len(at)
                    at = np.floor(at * blocks)
                changed[1:] |= at[1:] != at[:-1]
        return int(changed.sum())


def _list(operation: Any, name: str) -> list[Any]:
    return list(operation.attributes[name]) if name in operation.attributes else []


def _integer(operation: Any, name: str) -> int:
    if name not in operation.attributes:
        return 0
    return int(str(operation.attributes[name]).partition(" ")[0])


def _text(attribute: Any) -> str:
    return str(attribute).strip('"')


def _window_function(window: str) -> str:
    _, found, rest = window.partition("transform_indices = @")
    return rest.partition(",")[0].partition("}")[0].strip() if found else ""


def _is_scalar(kind: Any) -> bool:
    return str(kind) in ("index", "i1", "i8", "i16", "i32", "i64")


def _shape(kind: Any) -> tuple[int, ...]:
    """Returns the shape of a type such as `vector<8x128xf32>` or `memref<8xi32, ...>`."""
    inner = str(kind).partition("<")[2].partition(",")[0].rstrip(">")
    return tuple(int(size) for size in inner.split("x")[:-1] if size.isdigit())


def _dtype(kind: Any) -> str:
    return str(kind).partition("<")[2].partition(",")[0].rstrip(">").split("x")[-1]


def _itemsize(dtype: str) -> float:
    digits = "".join(character for character in dtype.partition("E")[0] if character.isdigit())
    return max(int(digits or 32), 8) / 8
