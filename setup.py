"""Packaging of moe_jax: metadata, dependencies and the files that belong in the wheel.

Every bound names releases that exist and that the tests ran with; a comment says why where the
reason is not simply "the next major version may break us".
"""

import pathlib
import re

from setuptools import find_packages, setup

ROOT = pathlib.Path(__file__).resolve().parent


def read_version() -> str:
    """Returns `__version__` from moe_jax/version.py without importing the package."""
    text = (ROOT / "moe_jax" / "version.py").read_text(encoding="utf-8")
    match = re.search(r'^__version__ = "([^"]+)"$', text, re.MULTILINE)
    if match is None:
        raise RuntimeError('moe_jax/version.py needs a line of the form: __version__ = "0.1.0"')
    return match.group(1)


# jax makes breaking changes in minor releases; 0.10 is the last line for Python 3.11, 0.12 the
# newest one for Python 3.12 and 3.13, and both run the tests.
JAX_BOUNDS = ">=0.10.2,<0.13"

INSTALL_REQUIRES = [
    f"jax{JAX_BOUNDS}",
    "flax>=0.12.8,<0.13",  # flax.nnx still changes in minor releases.
    "optax>=0.2.8,<0.3",
    "orbax-checkpoint>=0.12.8,<0.13",  # Checkpoint policies still change in minor releases.
    "numpy>=2.0,<3",  # jax's own floor.
    "jaxtyping>=0.3,<0.4",
    "etils[epath]>=1.9.1,<2",
    "gin-config==0.5.0",  # The error messages that we reword are matched by their text.
    "rich>=13.7,<16",
    "tensorboardX>=2.6.2.2,<3",
    "matplotlib>=3.9,<4",  # Imported by `moe-jax plot` and `moe-jax compare` only.
    "jinja2>=3.1,<4",  # Imported by `moe-jax compare` only.
    # Data and evaluation. Never add tensorflow-cpu: seqio needs tensorflow-text, which needs
    # tensorflow, and the two would be written over the same directory.
    "seqio>=0.0.20,<0.1",
    "tensorflow>=2.21,<2.22",  # tensorflow-text, which seqio needs, pins the same minor release.
    "tensorflow-datasets>=4.9.10,<5",
    "sentencepiece>=0.2.3,<0.3",
    "protobuf>=7.36.1,<8",  # sentencepiece 0.2.3 needs 7.36.1 undeclared; tensorflow needs <8.
    "importlib_resources>=6.0,<8",  # Imported by tensorflow-datasets 4.9.10, not declared there.
    # Metrics, imported when one is computed.
    "scikit-learn>=1.9.1,<2",
    "scipy>=1.17.1,<2",
    "sacrebleu>=2.6.0,<3",
    "rouge-score>=0.1.2,<0.2",
]

EXTRAS_REQUIRE = {
    "tpu": [
        # Each jax release pins the one libtpu it was tested with (0.10.2: 0.0.42, 0.12.0: 0.0.50):
        # another cannot be installed beside it, and no page quotes another.
        f"jax[tpu]{JAX_BOUNDS}",
        "libtpu>=0.0.42,<0.0.51",
    ],
    "dev": [
        "pytest>=9.0,<10",
        "pytest-xdist>=3.6,<4",
        "hypothesis>=6.100,<7",
        "nbclient>=0.10,<1",  # With ipykernel, for the notebook.
        "ipykernel>=6.29,<8",
        "beartype>=0.21,<1",  # Checks array annotations in tests.
        "ruff>=0.17.6,<0.18",  # Minor releases add rules and change the formatting.
        "mypy>=2.4,<2.5",  # Minor releases add errors.
        "build>=1.2,<2",
        "pre-commit>=4.0,<5",
    ],
    "wandb": ["wandb>=0.31,<0.32"],  # Before 1.0; the first that was seen to accept protobuf 7.
    "docs": ["mkdocs-material>=9.5,<10"],
}

setup(
    name="moe_jax",
    version=read_version(),
    description="Pre-train decoder-only mixture-of-experts language models with JAX and Flax",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author="The moe_jax authors",
    license_expression="Apache-2.0",
    license_files=["LICENSE"],
    keywords=["mixture of experts", "language models", "pre-training", "jax", "flax", "tpu"],
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Environment :: Console",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
    # TensorFlow 2.21 has wheels up to Python 3.13. There, editdistance, which seqio needs, has none
    # and is compiled.
    python_requires=">=3.11,<3.14",
    packages=find_packages(include=["moe_jax", "moe_jax.*"]),
    # configs/ holds gin files only and is no Python package: its files are data of moe_jax.
    package_data={
        "moe_jax": [
            "py.typed",
            "configs/**/*.gin",
            "data/embedded/**/*",
            "compare/report/templates/*",
        ]
    },
    include_package_data=False,
    install_requires=INSTALL_REQUIRES,
    extras_require=EXTRAS_REQUIRE,
    entry_points={"console_scripts": ["moe-jax = moe_jax.cli:main"]},
    zip_safe=False,
)
