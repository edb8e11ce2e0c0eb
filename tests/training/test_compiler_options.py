"""A configuration may set compiler options, except for those that name files."""

import re

import pytest

from moe_jax import config, experiments
from moe_jax.config_source import ConfigSource
from moe_jax.errors import UserError
from moe_jax.pods import variants
from moe_jax.training import compiler_options

SHIPPED = "\n".join((config.config_root() / name).read_text() for name in config.shipped())


@pytest.mark.parametrize(
    "options",
    [
        {"xla_dump_to": "/tmp/x"},
        {"xla_dump_to": "x"},
        {"xla_dump_hlo_as_text": True},
        {"xla_gpu_cuda_data_dir": "evil"},
        {"xla_gpu_asm_extra_flags": "x"},
        {"xla_backend_extra_options": "x"},
        {"xla_gpu_ptx_file": "x"},
        {"xla_gpu_kernel_cache_file": "x"},
        {"xla_gpu_load_autotune_results_from": "x"},
        {"xla_gpu_pgle_profile_file_or_directory_path": "x"},
        {"xla_tpu_anything": "/etc/passwd"},
        {"xla_tpu_anything": "~/x"},
        {"xla_tpu_anything": "true --xla_dump_to=x"},
        {"xla_tpu_anything": ["x"]},
        {1: True},
        ["xla_dump_to"],
    ],
)
def test_options_that_reach_outside_are_refused(options):
    with pytest.raises(UserError, match=r"Train\.compiler_options"):
        compiler_options.check(options)


def test_the_packages_own_options_pass():
    named = set(re.findall(r"'(xla_\w+)': 'true'", SHIPPED))
    named |= {*variants.ASYNC_OPTIONS, *variants.FUSED_OPTIONS, *variants.SPARSE_CORE_OPTIONS}
    assert len(named) > 5
    compiler_options.check(dict.fromkeys(named, "true"))
    compiler_options.check({"xla_tpu_scoped_vmem_limit_kib": 65536, "xla_tpu_scale": "-1.5e3"})
    compiler_options.check({"xla_tpu_prefer_async_allgather_to_allreduce": True})


def test_a_gin_file_is_refused():
    with pytest.raises(UserError, match="xla_dump_to = '/tmp/x' was refused"):
        experiments.load(
            ConfigSource(
                ["runs/quickstart.gin"], ["Train.compiler_options={'xla_dump_to': '/tmp/x'}"]
            )
        )
