"""What `MODULE:NAME` names: a GripEdge, or what has one.

A Flask, Starlette or FastAPI app has one too. No framework is imported: who has an app of it has
imported it.
"""

from __future__ import annotations

import argparse
import os
import sys
import sysconfig
import traceback
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, cast

from grip_edge_middleware.cli.status import WrongUse
from grip_edge_middleware.edge import GripEdge, GripEdgeMiddleware
from grip_edge_middleware.errors import SettingsError
from grip_edge_middleware.middleware.asgi import ASGIMiddleware
from grip_edge_middleware.middleware.flask import EXTENSION
from grip_edge_middleware.types import ASGIApp, WSGIApplication

APP_VARIABLE = "GRIP_EDGE_APP"
KINDS = "a GripEdge, a dict of settings, or a Flask, Starlette or FastAPI app with an edge"


@dataclass(frozen=True, slots=True)
class Chosen:
    """An edge, and the app that it is around, as far as this process has one."""

    edge: GripEdge
    wsgi: WSGIApplication | None = None
    asgi: ASGIApp | None = None


def app_options() -> argparse.ArgumentParser:
    """Return the options of the commands that need an edge, for argparse's `parents`."""
    options = argparse.ArgumentParser(add_help=False)
    options.add_argument(
        "--app",
        metavar="MODULE:NAME",
        default=os.environ.get(APP_VARIABLE),
        help=f"the GripEdge, the settings dict, or the app (default: ${APP_VARIABLE})",
    )
    options.add_argument("--app-dir", default=".", help="where the module is (default: here)")
    return options


def chosen(options: argparse.Namespace) -> Chosen:
    """Return the edge that `app_options` name, and its app. WrongUse if there is none."""
    if not options.app:
        raise WrongUse(f'which app? say --app MODULE:NAME, as in "shop:edge", or ${APP_VARIABLE}')
    return _chosen(options.app, _loaded(options.app, options.app_dir))


def chosen_edge(options: argparse.Namespace) -> GripEdge:
    """Return the edge that `app_options` name. WrongUse if there is none."""
    return chosen(options).edge


def edge_named(path: str, app_dir: str) -> GripEdge:
    """Return the edge that a path names. WrongUse says what is wrong with it."""
    return _chosen(path, _loaded(path, app_dir)).edge


def _chosen(path: str, found: object) -> Chosen:
    if isinstance(found, Mapping):
        return Chosen(GripEdge(settings=found))
    if isinstance(found, GripEdge):
        return _with_face(found)
    if isinstance(found, GripEdgeMiddleware):
        return Chosen(found.edge, asgi=found)
    if _is_a(found, "flask", "Flask"):
        return Chosen(_edge_of_flask(path, found), wsgi=cast(WSGIApplication, found))
    if _is_a(found, "starlette.applications", "Starlette"):
        return Chosen(_edge_of_starlette(path, found), asgi=cast(ASGIApp, found))
    kind = type(found).__name__
    raise WrongUse(f"{path}: expected {KINDS}, got {kind}")


def _with_face(edge: GripEdge) -> Chosen:
    face = edge.face
    if isinstance(face, ASGIMiddleware):
        return Chosen(edge, asgi=face)
    return Chosen(edge, wsgi=face)


def _is_a(found: object, module: str, name: str) -> bool:
    kind = getattr(sys.modules.get(module), name, None)
    return isinstance(kind, type) and isinstance(found, kind)


def _edge_of_flask(path: str, app: Any) -> GripEdge:
    edge = app.extensions.get(EXTENSION)
    if not isinstance(edge, GripEdge):
        raise WrongUse(f"{path}: this Flask app has no edge; GripEdge(app) gives it one")
    return edge


def _edge_of_starlette(path: str, app: Any) -> GripEdge:
    for entry in app.user_middleware:
        if isinstance(entry.cls, type) and issubclass(entry.cls, GripEdgeMiddleware):
            given = dict(zip(("settings",), entry.args, strict=False)) | entry.kwargs
            return given.get("edge") or GripEdge(settings=given.get("settings"))
    kind = type(app).__name__
    raise WrongUse(
        f"{path}: there is no GripEdgeMiddleware in the middleware of this {kind} app; name the "
        "GripEdge itself, if it is elsewhere"
    )


def _loaded(path: str, app_dir: str) -> object:
    """Return what a path names. WrongUse also if its module raises."""
    try:
        return named(path, app_dir)
    except (WrongUse, SettingsError):
        raise  # say all themselves
    except (Exception, SystemExit) as error:
        said = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        raise WrongUse(f"{path}: importing it raised {said}, at {_place(error)}") from error


def named(path: str, app_dir: str) -> object:
    """Return what a module has by that name. WrongUse if there is nothing.

    What the module itself raises is raised.
    """
    module, separator, names = path.partition(":")
    if not separator or not module or not names:
        raise WrongUse(f'{path}: expected MODULE:NAME, as in "app:edge"')
    if not all(part.isidentifier() for part in module.split(".")):
        raise WrongUse(f"{path}: {module} is no module's name; --app-dir says where it is")
    if not Path(app_dir).is_dir():
        raise WrongUse(f"--app-dir {app_dir}: there is no such folder")
    found: object = _imported(path, module, app_dir)
    for name in names.split("."):
        try:
            found = getattr(found, name)
        except AttributeError:
            raise WrongUse(f'{path}: there is no "{name}" in {module}') from None
    return found


def _imported(path: str, module: str, app_dir: str) -> object:
    sys.path.insert(0, app_dir)
    try:
        # What the app prints is no part of an answer.
        with redirect_stdout(sys.stderr):
            return import_module(module)
    except ModuleNotFoundError as error:
        if not error.name or not f"{module}.".startswith(f"{error.name}."):
            raise
        raise WrongUse(f"{path}: {error}; is --app-dir where it is?") from error


def _place(error: BaseException) -> str:
    """Return the file and the line: the app's own, if one of them was on the way there."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}, line {error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    frame = next((f for f in reversed(frames) if _is_of_the_app(f.filename)), frames[-1])
    return f"{frame.filename}, line {frame.lineno}"


def _is_of_the_app(filename: str) -> bool:
    libraries = ("<", sysconfig.get_paths()["stdlib"], str(Path(__file__).parents[1]))
    return not filename.startswith(libraries) and "site-packages" not in filename
