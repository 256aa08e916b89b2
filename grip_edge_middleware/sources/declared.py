"""What the settings say of models, held against the models that there are."""

from __future__ import annotations

import logging

from grip_edge_middleware.changes import Watches
from grip_edge_middleware.errors import Mistake, SettingsError

logger = logging.getLogger(__name__)


def check_attributes(watches: Watches, kind: type) -> None:
    """Raise SettingsError if a class lacks an attribute that its topics' names need."""
    names = (name for watch in watches.find(kind) for name in watch.attributes)
    mistakes = [
        Mistake(
            "models",
            f"{kind.__qualname__} has no attribute {name!r} to fill the topic's name",
            'map it: {"model": ..., "params": {"' + name + '": "its attribute"}}',
        )
        for name in dict.fromkeys(names)
        if not hasattr(kind, name)
    ]
    if mistakes:
        raise SettingsError(mistakes)


def warn_of_unknown(watches: Watches) -> None:
    """Say which paths name nothing. At the first save, the app's modules are imported."""
    for path in watches.unknown():
        logger.error(
            'models: nothing that is imported is named "%s", so its saves are not seen; '
            'in a script that is run directly, it is "__main__:..."',
            path,
        )
