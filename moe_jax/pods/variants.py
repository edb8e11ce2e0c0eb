"""Variants of a configuration as gin bindings, for sweeps and for saving memory."""

import dataclasses
import re
from collections.abc import Iterator

from moe_jax.config import shipped
from moe_jax.cost_model.topologies import Topology
from moe_jax.experiments import Experiment
from moe_jax.models.config import ACTIVATIONS

# XLA's options that let collectives overlap with computation.
ASYNC_OPTIONS = (
    "xla_enable_async_all_gather",
    "xla_tpu_enable_async_all_to_all",
    "xla_enable_async_all_reduce",
)
# Also fuses parts of all-reduces into matrix products; on v4, code generation can run out of VMEM.
FUSED_OPTIONS = (*ASYNC_OPTIONS, "xla_tpu_enable_async_collective_fusion_fuse_all_reduce")
SPARSE_CORE_OPTIONS = (
    "xla_tpu_enable_async_all_to_all",
    "xla_tpu_enable_sparse_core_collective_offload_all_gather",
    "xla_tpu_enable_sparse_core_collective_offload_2d_all_gather",
    "xla_tpu_enable_sparse_core_collective_offload_3d_all_gather",
    "xla_tpu_enable_sparse_core_collective_offload_reduce_scatter",
    "xla_tpu_enable_sparse_core_collective_offload_all_reduce",
)
# Chips whose SparseCores can run collectives.
_OFFLOADING = ("v5p", "v6e", "tpu7x")
# Code generation refuses it there: "Async all-to-all not supported on limited ICI".
_NEVER = {"v5e": ("xla_tpu_enable_async_all_to_all",)}
# Activations to save for the backward pass, in descending order of saved time per byte.
SAVED_ACTIVATIONS = (
    "moe_rows",
    "moe_out",
    "qkv",
    "attention_context",
    "moe_in",
    "ffn_hidden",
    "moe_hidden",
)
assert set(SAVED_ACTIVATIONS) <= set(ACTIVATIONS)
# Numbers of saved activations to try.
_SAVED_COUNTS = (0, 3, 5, 6, 7)
# The package's mesh files by chip, number of chips and number of experts.
_MESH_FILE = re.compile(r"mesh/([a-z0-9]+)_(\d+)_(\d+)_experts\.gin")


@dataclasses.dataclass(frozen=True)
class Variant:
    """A change of the configuration.

    Attributes:
        name: in words.
        bindings: gin bindings.
        files: gin files, which the bindings override.
    """

    name: str
    bindings: tuple[str, ...]
    files: tuple[str, ...] = ()


def remat_variants() -> list[Variant]:
    """Returns rematerialisation policies, from no saved activations to all worthwhile ones."""
    found = [Variant("remat full", ("Model.remat='full'",))]
    for count in _SAVED_COUNTS[1:]:
        saved = SAVED_ACTIVATIONS[:count]
        bindings = ("Model.remat='named'", f"Model.remat_names={saved!r}")
        found.append(Variant(f"remat keeps {', '.join(saved)}", bindings))
    return found


def mesh_file_variants(experiment: Experiment, topology: Topology) -> list[Variant]:
    """Returns the package's mesh files for this chip and the experts, the nearest size first."""
    num_experts = experiment.model.num_experts
    found = []
    for name in shipped():
        match = _MESH_FILE.fullmatch(name)
        if (
            match
            and match[1] == topology.chip.name
            and num_experts
            and not num_experts % int(match[3])
        ):
            chips = int(match[2])
            ratio = max(chips, topology.chips) / min(chips, topology.chips)
            found.append((ratio, Variant(name, (), (name,))))
    return [variant for _, variant in sorted(found, key=lambda item: item[0])]


def mesh_variants(experiment: Experiment, topology: Topology) -> list[Variant]:
    """Returns meshes whose axes divide the devices, and whose expert axis divides the experts."""
    devices, num_experts = topology.device_count, experiment.model.num_experts
    found = []
    sizes = [size for size in (1, 8, 16, 32, 64, 128) if num_experts % size == 0 and num_experts]
    for expert in [size for size in sizes if size <= devices and devices % size == 0] or [1]:
        rest = devices // expert
        for axis in ("fsdp", "data") if rest > 1 else ("fsdp",):
            other = "data" if axis == "fsdp" else "fsdp"
            shardings = {"('fsdp', 'expert')", "'fsdp'", "'expert'"} if expert > 1 else {"'fsdp'"}
            for sharding in sorted(shardings):
                if axis == "data" and "fsdp" in sharding:
                    continue
                bindings = (
                    f"Mesh.{axis}={rest}",
                    f"Mesh.{other}=1",
                    f"Mesh.expert={expert}",
                    f"Mesh.rules={{'embed': {sharding}}}",
                )
                shown = sharding.strip("()").replace("'", "")
                name = f"{axis} {rest} x expert {expert}, weights over {shown}"
                found.append(Variant(name, bindings))
    return found


def option_variants(topology: Topology) -> list[Variant]:
    """Returns sets of compiler options."""
    groups = {
        "XLA's defaults": (),
        "asynchronous collectives": ASYNC_OPTIONS,
        "asynchronous, all-reduces in products": FUSED_OPTIONS,
    }
    chip = topology.chip.name
    if chip in _OFFLOADING:
        groups["collectives on SparseCores"] = SPARSE_CORE_OPTIONS
    found = []
    for name, names in groups.items():
        options = {option: "true" for option in names if option not in _NEVER.get(chip, ())}
        found.append(Variant(name, (f"Train.compiler_options={options!r}",)))
    return found


def dispatch_variants(experiment: Experiment) -> list[Variant]:
    """Returns explicit and implicit (GSPMD) expert parallelism."""
    if not experiment.model.num_experts:
        return []
    return [
        Variant(f"{kind} expert parallelism", (f"Mesh.expert_parallelism='{kind}'",))
        for kind in ("explicit", "implicit")
    ]


def memory_saving_variants(experiment: Experiment, topology: Topology) -> Iterator[Variant]:
    """Yields variants that need less memory, in ascending order of cost in time."""
    if experiment.model.remat != "full":
        # Other policies save more than the named activations.
        is_named = experiment.model.remat == "named"
        num_saved = len(experiment.model.remat_names) if is_named else len(SAVED_ACTIVATIONS) + 1
        for count, variant in reversed(list(zip(_SAVED_COUNTS, remat_variants(), strict=True))):
            if count < num_saved:
                yield variant
    for factor in (2, 4, 8, 16):
        accumulation = experiment.train.accumulation * factor
        if experiment.data.batch_size % (accumulation * topology.device_count) == 0:
            bindings = ("Model.remat='full'", f"Train.accumulation={accumulation}")
            yield Variant(f"remat full, {accumulation} micro-batches", bindings)


def tensor_variants(experiment: Experiment, topology: Topology) -> list[Variant]:
    """Returns meshes with tensor parallelism, which shards matrix products and activations."""
    found = []
    for tensor in (2, 4, 8):
        devices = experiment.mesh.sizes(topology.device_count)
        rest, left = divmod(devices["fsdp"] * devices["data"], tensor)
        heads = experiment.model.num_heads % (tensor * devices["tensor"])
        if not left and not heads:
            sizes = {"data": 1, "fsdp": rest, "tensor": tensor * devices["tensor"]}
            bindings = tuple(f"Mesh.{axis}={size}" for axis, size in sizes.items())
            found.append(Variant(f"fsdp {rest}, tensor {sizes['tensor']}", bindings))
    return found
