"""What is particular to this project, and little else."""

import os
from pathlib import Path

HERE = Path(__file__).resolve().parent

INSTALLED_APPS = ["examples.django_app", "grip_edge_middleware.django"]
MIDDLEWARE = [
    "grip_edge_middleware.django.GripEdgeMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
GRIP_EDGE = {
    "grip_url": os.environ.get("GRIP_URL", "http://127.0.0.1:5561"),
    "cdn": os.environ.get("EDGE_CDN", "varnish://127.0.0.1:6081"),
    "throttle": 1.0,
    # "external": `manage.py grip_edge dispatch` sends; it needs GRIP_EDGE_STORE.
    "dispatch": os.environ.get("DISPATCH", "here"),
    "topics": {
        "counter-{name}": {
            "routes": [
                {"path": "name:counter", "hold": "stream", "accept": "text/event-stream"},
                "name:page",
            ],
            "models": ["examples.django_app.models:Counter"],
        },
    },
}

ROOT_URLCONF = "examples.django_app.urls"
WSGI_APPLICATION = "examples.django_app.wsgi.application"
ASGI_APPLICATION = "examples.django_app.asgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [HERE / "templates", HERE.parent / "page"],
    }
]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ.get("DATABASE_URL", "sqlite:///counters.sqlite3").removeprefix(
            "sqlite:///"
        ),
        # Many read while one writes.
        "OPTIONS": {"init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL"},
    }
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
# It signs nothing here: there are neither sessions nor forms of Django's.
SECRET_KEY = os.environ.get("SECRET_KEY", "of an example")
ALLOWED_HOSTS = ["localhost", "127.0.0.1"]
