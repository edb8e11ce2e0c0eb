"""The gin files and bindings that make up one configuration."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class ConfigSource:
    """Gin files and bindings of one configuration; sequences are converted to tuples.

    Attributes:
        files: gin files; later files override earlier ones.
        bindings: NAME=VALUE texts, which override the files.
        search_paths: directories in which files are looked up before the package's own.
        run_config: the one of `files` that is the `config.gin` of a run directory, which is not
            trusted (`gin_imports`, `gin_network_paths`); None without a run.
    """

    files: tuple[str, ...] = ()
    bindings: tuple[str, ...] = ()
    search_paths: tuple[str, ...] = ()
    run_config: str | None = None

    def __post_init__(self) -> None:
        for name in ("files", "bindings", "search_paths"):
            object.__setattr__(self, name, tuple(getattr(self, name)))

    def over_run(self, config_file: str) -> "ConfigSource":
        """Returns the configuration of a run with these files and bindings on top."""
        files = (config_file, *self.files)
        return dataclasses.replace(self, files=files, run_config=config_file)

    def replace_files(self, *files: str) -> "ConfigSource":
        """Returns other files with the same bindings and search paths."""
        return dataclasses.replace(self, files=files)
