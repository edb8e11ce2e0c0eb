"""Imports TensorFlow without Keras, and without blocking other threads.

Keras takes two fifths of the import time, and nothing here uses it. TensorFlow imports it (and with
it scikit-learn, SciPy and Matplotlib) at the end of its own import, and works without it;
tensorflow-text imports it for layers that its tokenizers do not need. So during these imports Keras
is missing for TensorFlow, and loaded lazily for tensorflow-text. `tf.keras` and `import keras` work
normally afterwards.
"""

import ctypes
import importlib.abc
import importlib.machinery
import os
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

_LAYERS = "tensorflow_text.python.keras"
_LIBRARIES = ("libtensorflow_framework.so.2", "libtensorflow_cc.so.2")


class _MissingLoader(importlib.abc.Loader):
    """A loader of a module that is treated as missing."""

    def exec_module(self, module: ModuleType) -> None:
        raise ModuleNotFoundError("Keras is imported on demand", name=module.__name__)


class _LazyLoader(importlib.abc.Loader):
    """Loads a module at the first access to one of its attributes.

    Unlike `importlib.util.LazyLoader` it ignores attributes such as `__file__`, which `inspect`
    reads of all modules.
    """

    def __init__(self, loader: importlib.abc.Loader):
        self._loader = loader

    def exec_module(self, module: ModuleType) -> None:
        def load(name: str) -> Any:
            if name.startswith("__"):
                raise AttributeError(f"module {module.__name__!r} has no attribute {name!r}")
            del module.__getattr__
            self._loader.exec_module(module)
            return getattr(module, name)

        module.__getattr__ = load  # type: ignore[method-assign]


class _KerasFinder:
    """The first finder of modules, which defers Keras."""

    @staticmethod
    def find_spec(
        name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Returns the spec of Keras with another loader, and None for all other modules."""
        is_keras = name == "keras" and _is_being_imported("tensorflow")
        if not is_keras and not (name == _LAYERS and _is_being_imported("tensorflow_text")):
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _MissingLoader() if is_keras else _LazyLoader(spec.loader)
        return spec


def _is_being_imported(name: str) -> bool:
    spec = getattr(sys.modules.get(name), "__spec__", None)
    return bool(getattr(spec, "_initializing", False))


def defer_keras() -> None:
    """Makes later imports of TensorFlow omit Keras."""
    if "tensorflow" not in sys.modules and _KerasFinder not in sys.meta_path:
        sys.meta_path.insert(0, _KerasFinder)


def load_libraries() -> None:
    """Loads TensorFlow's shared libraries, a gigabyte, on Linux.

    Unlike their import, it releases Python's global lock; the import then finds them loaded.
    """
    spec = importlib.machinery.PathFinder.find_spec("tensorflow")
    if spec is None or sys.platform != "linux":
        return
    # ctypes releases Python's global lock during the call.
    dlopen = ctypes.CDLL(None).dlopen
    for folder in spec.submodule_search_locations or ():
        for name in _LIBRARIES:
            if os.path.exists(path := os.path.join(folder, name)):
                dlopen(os.fsencode(path), os.RTLD_NOW)


def get_ready_for_threads() -> None:
    """Imports modules that must not be imported while another thread may import something.

    TensorFlow Datasets replaces Python's `__import__` for all threads during its import, which
    takes half a second and does not import TensorFlow.
    """
    import tensorflow_datasets  # noqa: F401
