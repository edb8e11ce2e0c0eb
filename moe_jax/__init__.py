"""moe_jax: pre-train decoder-only mixture-of-experts language models with JAX.

Importing this package imports neither JAX nor TensorFlow; import the module you need.
"""

from moe_jax.version import __version__

__all__ = ["__version__"]
