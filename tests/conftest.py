"""Settings that have to be made before JAX or TensorFlow start."""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# See scripts/test.sh: too few threads for virtual devices hang in jax 0.10.2.
os.environ.setdefault("NPROC", "16")
