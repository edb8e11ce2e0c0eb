"""Tasks and mixtures that the user's own modules have registered with seqio."""

import sys


def registered_tasks() -> list[str]:
    """Returns all names in the registries of seqio; none if seqio has not been imported."""
    seqio = sys.modules.get("seqio")
    registries = (seqio.TaskRegistry, seqio.MixtureRegistry) if seqio is not None else ()
    return [name for registry in registries for name in registry.names()]
