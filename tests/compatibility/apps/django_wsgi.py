"""The project for WSGI."""

from __future__ import annotations

import os

from django.core.wsgi import get_wsgi_application

os.environ["DJANGO_SETTINGS_MODULE"] = "tests.compatibility.apps.django_project"
app = get_wsgi_application()
