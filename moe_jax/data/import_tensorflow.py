"""How TensorFlow is imported: without Keras, and while other threads work.

Keras takes two fifths of the time, and nothing here uses it. TensorFlow imports it (and with it
scikit-learn, SciPy and Matplotlib) at the end of its own import, and does without where there is
none; tensorflow-text imports it for layers that its tokenizers do not need. So while they are being
imported, Keras is said to be missing to the first, and put off to its first use for the second.
`tf.keras` and `import keras` work as ever afterwards.
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


class _NotNow(importlib.abc.Loader):
    """Loads nothing."""

    def exec_module(self, module: ModuleType) -> None:
        raise ModuleNotFoundError("Keras is imported on demand", name=module.__name__)


class _OnFirstUse(importlib.abc.Loader):
    """Loads a module when it is first asked for one of its names.

    Unlike `importlib.util.LazyLoader`, not for names such as `__file__`, which `inspect` asks all
    modules for.
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


class _KerasOnDemand:
    """A finder of modules that goes before all others."""

    @staticmethod
    def find_spec(
        name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Returns a module's place with another loader for Keras, and None for all others."""
        is_keras = name == "keras" and _is_being_imported("tensorflow")
        if not is_keras and not (name == _LAYERS and _is_being_imported("tensorflow_text")):
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _NotNow() if is_keras else _OnFirstUse(spec.loader)
        return spec


def _is_being_imported(name: str) -> bool:
    spec = getattr(sys.modules.get(name), "__spec__", None)
    return bool(getattr(spec, "_initializing", False))


def put_keras_off() -> None:
    """Makes later imports of TensorFlow do without Keras."""
    if "tensorflow" not in sys.modules and _KerasOnDemand not in sys.meta_path:
        sys.meta_path.insert(0, _KerasOnDemand)


def load_libraries() -> None:
    """Loads TensorFlow's shared libraries, a gigabyte, where they are known by name (Linux).

    Unlike an import of them, it lets other threads run Python meanwhile; the import then finds them
    loaded.
    """
    spec = importlib.machinery.PathFinder.find_spec("tensorflow")
    if spec is None or sys.platform != "linux":
        return
    # A function of a library that ctypes loaded is called without Python's global lock.
    dlopen = ctypes.CDLL(None).dlopen
    for folder in spec.submodule_search_locations or ():
        for name in _LIBRARIES:
            if os.path.exists(path := os.path.join(folder, name)):
                dlopen(os.fsencode(path), os.RTLD_NOW)


def get_ready_for_threads() -> None:
    """Imports what must not be imported while another thread may import something.

    While TensorFlow Datasets is being imported, it replaces Python's `__import__` for all threads.
    It does not import TensorFlow, and takes half a second.
    """
    import tensorflow_datasets  # noqa: F401
