"""The edge of a Django project: an app, a middleware, and `edge`.

    INSTALLED_APPS = [..., "grip_edge_middleware.django"]
    MIDDLEWARE = ["grip_edge_middleware.django.GripEdgeMiddleware", ...]  # before all others
    GRIP_EDGE = {"topics": {"counter-{name}": {"routes": ["name:counter"], ...}}, ...}

`edge` is the project's GripEdge. It is made of `GRIP_EDGE` when it is first needed, so any module
may import it while Django is set up.
"""

from __future__ import annotations

from grip_edge_middleware.django.middleware import GripEdgeMiddleware
from grip_edge_middleware.django.project import edge, get_asgi_application

__all__ = ["GripEdgeMiddleware", "edge", "get_asgi_application"]
