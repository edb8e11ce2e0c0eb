#!/usr/bin/env bash
# From a clone to a trained small model: installs moe_jax, then trains the quick start's model.
#
#   scripts/quickstart.sh [arguments of moe-jax train]
#
# MOE_JAX_RUNS  where runs are written (default: runs in the current directory)
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
venv="${MOE_JAX_VENV:-$root/.venv}"
bash "$root/scripts/setup.sh"

# Silence the start-up messages of TensorFlow and its libraries.
export TF_CPP_MIN_LOG_LEVEL=3 TF_ENABLE_ONEDNN_OPTS=0 GRPC_VERBOSITY=ERROR ABSL_MIN_LOG_LEVEL=3

exec "$venv/bin/moe-jax" train \
  --gin_file=runs/quickstart.gin \
  --output_dir="${MOE_JAX_RUNS:-runs}/quickstart" \
  "$@"
