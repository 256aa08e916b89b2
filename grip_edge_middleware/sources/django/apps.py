"""The Django app that brings the table of the outbox."""

from __future__ import annotations

from django.apps import AppConfig


class GripEdgeConfig(AppConfig):
    """Add `"grip_edge_middleware.sources.django"` to `INSTALLED_APPS`, and migrate."""

    name = "grip_edge_middleware.sources.django"
    label = "grip_edge"
    verbose_name = "GRIP edge"
