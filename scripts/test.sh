#!/usr/bin/env bash
# Runs the tests against the installed package:
#
#   scripts/test.sh                          the contract: every law, verb, router and fault
#   scripts/test.sh --all                    everything
#   scripts/test.sh tests/routing -n 0 -x    pytest's arguments: here one directory, in one process,
#                                            up to the first failure
#
# More arguments after --all are pytest's, too.
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
venv="${MOE_JAX_VENV:-$root/.venv}"
[[ "$venv" == /* ]] || venv="$PWD/$venv"
export MOE_JAX_VENV="$venv"
bash "$root/scripts/setup.sh" dev

if (($# == 0)); then
  echo "The tests of the contract: those without the marker slow. Everything: scripts/test.sh --all"
  set -- -m "not slow"
elif [[ "$1" == "--all" ]]; then
  shift
fi

export JAX_PLATFORMS=cpu
# The size of XLA's thread pool. With eight virtual devices on few cores it would have eight threads,
# and jax 0.10.2 then hangs in collectives when more than 32 steps are in flight; 16 are enough.
export NPROC="${NPROC:-16}"
# Silence the start-up messages of TensorFlow and its libraries.
export TF_CPP_MIN_LOG_LEVEL=3 TF_ENABLE_ONEDNN_OPTS=0 GRPC_VERBOSITY=ERROR ABSL_MIN_LOG_LEVEL=3
# Two workers: keep each from starting a thread per core in the numeric libraries.
export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1

cd "$root"
# loadfile: the tests of one file share its compiled functions and fixtures. Files are taken in the
# order of tests/conftest.py, the longest first. A worker that crashes ends the run: with loadfile,
# pytest-xdist 3.8 waits for ever for the files of a worker that it has replaced.
exec "$venv/bin/pytest" -n 2 --dist loadfile --no-loadscope-reorder --max-worker-restart=0 "$@"
