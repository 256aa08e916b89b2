import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "examples.django_app.settings")

from grip_edge_middleware.django import get_asgi_application

application = get_asgi_application()
