"""Routes by the names of URLs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import pytest
from django.conf.urls.i18n import i18n_patterns
from django.http import HttpRequest, HttpResponse
from django.test import override_settings
from django.urls import include, path, re_path, register_converter
from django.urls.converters import StringConverter
from django.utils.translation import gettext_lazy

from grip_edge_middleware.django.names import with_paths
from tests.sources import django_app

__all__ = ["django_app"]  # configures the process


def view(request: HttpRequest, **_: object) -> HttpResponse:
    return HttpResponse()


class YearConverter(StringConverter):
    regex = "[0-9]{4}"


if "year" not in sys.modules.get("django.urls.converters").REGISTERED_CONVERTERS:  # type: ignore[union-attr]
    register_converter(YearConverter, "year")

SHOP = (
    [
        path("orders/<int:pk>/", view, name="order"),
        path("items/<slug:slug>/<uuid:id>", view, name="item"),
    ],
    "shop",
)
URLS = [
    path("counters/<name>/", view, name="counter"),
    path("", view, name="index"),
    path("files/<path:file>", view, name="file"),
    path("plain/", include([path("<str:a>-<int:b>/", view, name="pair")])),
    path("shop/", include(SHOP)),
    path("<int:store>/shop/", include(SHOP, namespace="other")),
    path("lists/", view, name="list"),
    path("lists/<int:page>/", view, name="list"),
    re_path(r"^old/(?P<counter_id>[^/]+)/$", view, name="old"),
    re_path(r"^old/", include([re_path(r"^v1\.0/(?P<pk>\d+)\Z", view, name="version")])),
    re_path(r"^years/(?P<year>[0-9]{4})/$", view, name="regex"),
    re_path(r"^ends?/$", view, name="optional"),
    re_path(r"^open/", view, name="open"),
    path("years/<year:year>/", view, name="own"),
    path(gettext_lazy("translated/"), view, name="translated"),
    path("100%/", view, name="percent"),
    *i18n_patterns(path("local/", view, name="local")),
]


@pytest.fixture(autouse=True)
def urls() -> Iterator[None]:
    with urlconf(URLS):
        yield


@contextmanager
def urlconf(patterns: list[Any]) -> Iterator[None]:
    module = ModuleType("tests.middleware.urls_of_names")
    module.urlpatterns = patterns  # type: ignore[attr-defined]
    sys.modules[module.__name__] = module
    with override_settings(ROOT_URLCONF=module.__name__):
        yield
    del sys.modules[module.__name__]


def resolve(name: str, topic: str = "t") -> tuple[list[object], list[str]]:
    found, mistakes = with_paths({"topics": {topic: {"routes": [name]}}})
    routes = found["topics"][topic]["routes"]  # type: ignore[index]
    paths = [route["path"] if isinstance(route, dict) else route for route in routes]
    return paths, [str(mistake) for mistake in mistakes]


@pytest.mark.parametrize(
    ("name", "paths"),
    [
        ("name:counter", ["/counters/<str:name>/"]),
        ("name:index", ["/"]),
        ("name:file", ["/files/<path:file>"]),
        ("name:pair", ["/plain/<str:a>-<int:b>/"]),
        (
            "name:shop:item",
            ["/shop/items/<slug:slug>/<uuid:id>", "/<int:store>/shop/items/<slug:slug>/<uuid:id>"],
        ),
        ("name:other:order", ["/<int:store>/shop/orders/<int:pk>/"]),
        ("name:list", ["/lists/", "/lists/<int:page>/"]),
        ("name:old", ["/old/<str:counter_id>/"]),
        ("name:version", ["/old/v1.0/<int:pk>"]),
        ("/a/path/", ["/a/path/"]),
    ],
)
def test_a_name_stands_for_its_paths(name: str, paths: list[str]) -> None:
    assert resolve(name) == (paths, [])


def test_of_several_paths_those_count_that_fill_the_topics_name() -> None:
    paths, _ = resolve("name:list", "list-{page}")

    assert paths == ["/lists/<int:page>/"]


def test_a_parameter_that_no_path_has_is_left_to_the_settings() -> None:
    paths, mistakes = resolve("name:counter", "counter-{id}")

    assert paths == ["/counters/<str:name>/"]
    assert mistakes == []


def test_a_routes_own_settings_stay_with_its_paths() -> None:
    route = {"path": "name:list", "hold": "stream"}
    found, _ = with_paths({"throttle": 2, "topics": {"t": {"routes": [route], "edge_ttl": 5}}})

    paths = [{"path": path, "hold": "stream"} for path in ("/lists/", "/lists/<int:page>/")]
    assert found == {"throttle": 2, "topics": {"t": {"routes": paths, "edge_ttl": 5}}}


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("name:countr", 'no URL is named "countr" (did you mean "name:counter"?)'),
        ("name:order", 'no URL is named "order" (did you mean "name:shop:order"?)'),
        ("name:shop:nothing", 'no URL is named "shop:nothing"'),
        ("name:", 'no URL is named ""'),
        ("name:regex", "the regular expression ^years/(?P<year>[0-9]{4})/$ is no plain path"),
        ("name:optional", "the regular expression ^ends?/$ is no plain path"),
        ("name:open", 'the regular expression ^open/ has no end (end it with "$")'),
        ("name:own", "years/<year:year>/: YearConverter is a converter of the project's own"),
        ("name:translated", "its path is translated"),
        ("name:percent", "/100%/: a path is decoded and has no query"),
        ("name:local", "it is below i18n_patterns, so its path begins with a language"),
    ],
)
def test_a_name_that_cannot_be_told_says_why(name: str, said: str) -> None:
    paths, mistakes = resolve(name)

    assert paths == []
    [mistake] = mistakes
    assert mistake.startswith(f'topics["t"].routes[0]: {said}')


@pytest.mark.parametrize("found", [None, 7, {}, {"topics": 7}, {"topics": {"t": 7}}])
def test_what_is_no_settings_dict_is_left_to_the_settings(found: object) -> None:
    assert with_paths(found) == (found, [])


def test_every_mistake_is_found() -> None:
    routes = ["name:a", "/b/", {"path": "name:c"}, 7]
    _, mistakes = with_paths({"topics": {"t": {"routes": routes}}})

    assert [mistake.path for mistake in mistakes] == [f'topics["t"].routes[{n}]' for n in (0, 2)]
