"""Detection of the processes of a run from flags and the environment."""

import pytest

from moe_jax.errors import UserError
from moe_jax.sharding import distributed


def test_some_flags_without_the_others_are_refused():
    with pytest.raises(UserError, match="--num_processes and --process_id is not given"):
        distributed.initialize("host:1")
    with pytest.raises(UserError, match="must be from 0 to"):
        distributed.initialize("host:1", 2, 2)


SRUN = {
    "SLURM_JOB_ID": "4096",
    "SLURM_NTASKS": "4",
    "SLURM_PROCID": "2",
    "SLURM_LOCALID": "0",
    "SLURM_STEP_NODELIST": "tpu[003-006]",
}


@pytest.mark.parametrize(
    ("variables", "kind"),
    [
        ({}, None),
        (SRUN, "slurm"),
        ({**SRUN, "SLURM_NTASKS": "1"}, None),
        # The shell of an sbatch script: not started by srun.
        ({k: v for k, v in SRUN.items() if k != "SLURM_STEP_NODELIST"}, None),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1", "JOB_COMPLETION_INDEX": "3"}, "kubernetes"),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, None),
    ],
)
def test_the_environment_is_recognised(variables, kind):
    assert distributed.environment({"JAX_PLATFORMS": "cpu", **variables}) == kind


def test_slurm_says_where_to_meet(monkeypatch):
    for name, value in SRUN.items():
        monkeypatch.setenv(name, value)
    cluster = distributed._detect("slurm", 1)
    # jax's rule: the step's first node, and a port of the last 4096 by the job's number.
    assert cluster == distributed.Cluster("tpu003:61440", 4, 2, [0])


def test_a_tpu_is_recognised_unless_the_cpu_is_asked_for(monkeypatch, tmp_path):
    (tmp_path / "accel0").write_text("")
    monkeypatch.setattr(distributed, "_TPU_DEVICES", (f"{tmp_path}/accel*",))
    assert distributed.environment({}) == "tpu"
    assert distributed.environment({"JAX_PLATFORMS": "cpu"}) is None
