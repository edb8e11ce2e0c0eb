"""The Python API of `moe_jax`: load trained runs, and make and train experiments."""

import contextlib
import os
from collections.abc import Iterable, Iterator

from moe_jax import config, experiments, gin_imports
from moe_jax.config_source import ConfigSource
from moe_jax.errors import UserError
from moe_jax.experiments import Experiment
from moe_jax.library_output import suppress_library_output
from moe_jax.runs.listener import TrainingListener
from moe_jax.runs.loading import load_model, load_run
from moe_jax.runs.trained_run import TrainedRun
from moe_jax.runs.training import prepare_run, train
from moe_jax.training.initial import Step, check_step, split_checkpoint
from moe_jax.training.monitoring.progress import make_reporter


def load(
    path: str | os.PathLike[str],
    *,
    step: Step | None = None,
    files: Iterable[str] = (),
    bindings: Iterable[str] = (),
    allow_imports: Iterable[str] = (),
) -> TrainedRun:
    """Loads a trained run on one device.

    Args:
        path: a run directory, local or remote (`gs://...`), or one of its checkpoints,
            `RUN/checkpoints/STEP`.
        step: the step of the checkpoint, `best` (by `Checkpoints.best_is`) or `latest`; None for
            the one in `path`, or the latest.
        files: gin files that override the configuration of the run.
        bindings: bindings NAME=VALUE that override both, such as `Sampling.temperature=0.7`.
        allow_imports: modules that the configuration may import, such as the module of its router.

    Raises:
        UserError: if there is no such run or checkpoint, or for a mistake in the configuration.
    """
    directory, step = split_checkpoint(os.fspath(path), check_step(step))
    source = ConfigSource(_texts("files", files), _texts("bindings", bindings))
    with gin_imports.allowing(_texts("allow_imports", allow_imports)):
        run = load_run(directory, source)
    with suppress_library_output():
        return TrainedRun(load_model(run, step))


class ConfiguredExperiment:
    """An experiment that can be trained, as returned by `moe_jax.experiment`.

    Attributes:
        config: the configuration: model, router, data, optimizer, ...
        gin: the operative configuration as a gin file, with all values in use.
    """

    def __init__(self, source: ConfigSource, allow_imports: tuple[str, ...]):
        self._source, self._allow_imports = source, allow_imports
        with self._permissions():
            self.config: Experiment = experiments.load(source)
            self.gin = config.operative()

    def __repr__(self) -> str:
        """Returns the number of parameters and steps."""
        steps, parameters = self.config.train.steps, self.config.parameters().total
        return f"<ConfiguredExperiment of {parameters:,} parameters, {steps:,} steps>"

    def train(self, output_dir: str | os.PathLike[str], *, quiet: bool = False) -> TrainedRun:
        """Trains up to the last step, as `moe-jax train`; resumes an existing run.

        Args:
            output_dir: the run directory, local or remote.
            quiet: print neither progress nor messages.

        Returns:
            the trained run, at its last step.

        Raises:
            UserError: for errors that the user can correct.
            Interrupted: after Ctrl-C or SIGTERM, once a checkpoint is saved.
        """
        directory = os.fspath(output_dir)
        with self._permissions():
            run, partition = prepare_run(directory, self._source)
            train(run, partition, listener=TrainingListener() if quiet else _PrintingListener())
        return load(directory, allow_imports=self._allow_imports)

    @contextlib.contextmanager
    def _permissions(self) -> Iterator[None]:
        with gin_imports.allowing(self._allow_imports):
            yield


def experiment(
    files: Iterable[str],
    bindings: Iterable[str] = (),
    *,
    search_paths: Iterable[str] = (),
    allow_imports: Iterable[str] = (),
) -> ConfiguredExperiment:
    """Makes an experiment from gin files and bindings.

    Args:
        files: gin files, as for `--gin_file`; later files override earlier ones.
        bindings: bindings NAME=VALUE that override the files, as for `--gin.NAME=VALUE`.
        search_paths: directories to search for files.
        allow_imports: modules that the files may import, as for `--allow_imports`.

    Raises:
        UserError: for all mistakes in the configuration, one per line.
    """
    source = ConfigSource(
        _texts("files", files), _texts("bindings", bindings), _texts("search_paths", search_paths)
    )
    return ConfiguredExperiment(source, _texts("allow_imports", allow_imports))


class _PrintingListener(TrainingListener):
    """Prints messages, and the progress of steps as lines or as a bar."""

    def __init__(self) -> None:
        super().__init__(make_reporter())

    def message(self, line: str) -> None:
        """Prints a line."""
        print(line)


def _texts(name: str, values: Iterable[str]) -> tuple[str, ...]:
    """Returns strings as a tuple.

    Raises:
        UserError: for a single string, which would be iterated by characters, and for other types.
    """
    if isinstance(values, str):
        raise UserError(f"{name} is a list of texts: write [{values!r}]")
    texts = tuple(values)
    if wrong := [value for value in texts if not isinstance(value, str)]:
        raise UserError(f"{name} is a list of texts, and {wrong[0]!r} is none")
    return texts
