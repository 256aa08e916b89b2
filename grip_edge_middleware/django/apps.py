"""The Django app: its checks, its command, the outbox's table, and listening to what is saved."""

from __future__ import annotations

from django.apps import AppConfig
from django.core.signals import setting_changed
from django.db.backends.signals import connection_created

from grip_edge_middleware.sources.django.outbox import APP_LABEL


class GripEdgeConfig(AppConfig):
    """Add `"grip_edge_middleware.django"` to `INSTALLED_APPS`; with an outbox, migrate."""

    name = "grip_edge_middleware.django"
    label = APP_LABEL
    verbose_name = "GRIP edge"

    def ready(self) -> None:
        """Have the checks found, and the edge made before anything is written."""
        from grip_edge_middleware.django import checks, project

        checks.register()
        connection_created.connect(project.connect, dispatch_uid="grip_edge")
        setting_changed.connect(project.forget, dispatch_uid="grip_edge")
