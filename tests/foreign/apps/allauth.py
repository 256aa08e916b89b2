"""django-allauth: accounts for Django projects, asked through a project with all of its apps."""

from __future__ import annotations

from importlib import import_module
from typing import Any

NAME = "django-allauth"
VERSION = "65.21.1"
INSTALL = [
    f"django-allauth[headless,idp-oidc,mfa,openid,saml,socialaccount]=={VERSION}",
    "oauthlib==4.0.0",  # of the time; 4.0.1 answers with a scope that is not asserted
    "pytest==9.1.1",
    "pytest-asyncio==1.3.0",
    "pytest-django",
    "django==5.2.*",
    "django-ninja",
    "djangorestframework",
    "pillow",
    "psycopg[binary]",
    "pyyaml",
]
TESTS = ["tests"]
_CACHE_CONTROL = "it asserts the Cache-Control of a page whose lifetime the settings say"
EXPECTED = {
    f"tests/apps/idp/oidc/test_views.py::test_jwks_view{case}": _CACHE_CONTROL
    for case in ("", "_clamps_cache_control[90-90]", "_clamps_cache_control[10000-4711]")
}
AT_LEAST = {"seen": 1000, "changed": 300, "tagged": 50, "by rows": 300, "held": 300}

GRIP_EDGE = {
    "topics": {
        "page:{path}": {
            "routes": ["/<path:path>"],
            "hold": "stream",
            "auto_tags": {"scopes": ["user_id"]},
        },
        "login": {"routes": ["name:account_login"], "hold": "stream"},
        "user:{id}": {
            "routes": ["/users/<int:id>"],
            "models": ["django.contrib.auth.models:User"],
        },
    },
}


def wrap(wrapping: Any) -> None:
    settings: Any = import_module("tests.projects.regular.settings")
    settings.INSTALLED_APPS = (*settings.INSTALLED_APPS, "grip_edge_middleware.django")
    ours = "grip_edge_middleware.django.GripEdgeMiddleware"
    settings.MIDDLEWARE = (ours, *settings.MIDDLEWARE)
    settings.GRIP_EDGE = {**wrapping.targets, **GRIP_EDGE}

    from grip_edge_middleware.django import edge

    wrapping.record(edge)
