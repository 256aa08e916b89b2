"""The project for ASGI."""

from __future__ import annotations

import os

from grip_edge_middleware.django import get_asgi_application

os.environ["DJANGO_SETTINGS_MODULE"] = "tests.compatibility.apps.django_project"
app = get_asgi_application()
