"""What `MODULE:NAME` names: a GripEdge, or what has one."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping
from importlib import import_module

from grip_edge_middleware.cli.status import WrongUse
from grip_edge_middleware.edge import GripEdge, GripEdgeMiddleware

APP_VARIABLE = "GRIP_EDGE_APP"


def app_options() -> argparse.ArgumentParser:
    """Return the options of the commands that need an edge, for argparse's `parents`."""
    options = argparse.ArgumentParser(add_help=False)
    options.add_argument(
        "--app",
        metavar="MODULE:NAME",
        default=os.environ.get(APP_VARIABLE),
        help=f"the GripEdge, or the settings dict (default: ${APP_VARIABLE})",
    )
    options.add_argument("--app-dir", default=".", help="where the module is (default: here)")
    return options


def chosen_edge(options: argparse.Namespace) -> GripEdge:
    """Return the edge that `app_options` name. WrongUse if there is none."""
    if not options.app:
        raise WrongUse(f'which app? say --app MODULE:NAME, as in "shop:edge", or ${APP_VARIABLE}')
    return edge_named(options.app, options.app_dir)


def edge_named(path: str, app_dir: str) -> GripEdge:
    """Return the edge that a path names. WrongUse says what is wrong with it."""
    found = named(path, app_dir)
    match found:
        case GripEdge():
            return found
        case GripEdgeMiddleware():
            return found.edge
        case Mapping():
            return GripEdge(settings=found)
    kind = type(found).__name__
    raise WrongUse(f"{path}: expected a GripEdge or a dict of settings, got {kind}")


def named(path: str, app_dir: str) -> object:
    """Return what a module has by that name."""
    module, separator, names = path.partition(":")
    if not separator or not module or not names:
        raise WrongUse(f'{path}: expected MODULE:NAME, as in "app:edge"')
    sys.path.insert(0, app_dir)
    try:
        found: object = import_module(module)
    except ModuleNotFoundError as error:
        raise WrongUse(f"{path}: {error}; is --app-dir where it is?") from error
    for name in names.split("."):
        try:
            found = getattr(found, name)
        except AttributeError:
            raise WrongUse(f'{path}: there is no "{name}" in {module}') from None
    return found
