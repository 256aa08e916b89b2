"""`manage.py grip_edge COMMAND ...`: the command line, with the project's edge chosen."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import Any

from django.core.handlers.wsgi import WSGIHandler
from django.core.management.base import BaseCommand, CommandParser

from grip_edge_middleware import cli
from grip_edge_middleware.cli.named import APP_VARIABLE
from grip_edge_middleware.errors import SettingsError

EDGE = "grip_edge_middleware.django:edge"


class Command(BaseCommand):
    """What `grip-edge` does, for this project."""

    help = cli.DESCRIPTION

    # `check` says what is wrong by itself, and others are stopped by wrong settings.
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the commands of the command line."""
        cli.add_commands(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        """Run one. Its status is that of the process."""
        if options.get("app") == os.environ.get(APP_VARIABLE):  # so it was not asked for here
            options["app"] = EDGE
        with suppress(SettingsError):  # the command says so itself
            WSGIHandler()  # for those that ask the project, or render: it is the edge's app then
        status = cli.run(options)
        if status:
            sys.exit(status)
