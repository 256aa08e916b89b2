"""The middleware as `MIDDLEWARE` names it."""

from __future__ import annotations

from collections.abc import Awaitable

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.core.exceptions import MiddlewareNotUsed
from django.core.signals import setting_changed
from django.http import HttpRequest
from django.http.response import HttpResponseBase

from grip_edge_middleware.django.project import edge, is_spare
from grip_edge_middleware.middleware.django import AsyncGetResponse, GetResponse


class GripEdgeMiddleware:
    """Gives the responses of configured routes their headers, and answers next links.

        MIDDLEWARE = ["grip_edge_middleware.django.GripEdgeMiddleware", ...]

    It must come first: what stands before it may make a response private that it took for
    anybody's. SettingsError lists every mistake in `GRIP_EDGE`.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: GetResponse | AsyncGetResponse) -> None:
        if is_spare.get():
            raise MiddlewareNotUsed
        self._get_response = get_response
        self._face: GetResponse | AsyncGetResponse | None = edge.django(get_response)
        setting_changed.connect(self._forget)
        if iscoroutinefunction(get_response):
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        """Pass the request to the face."""
        face = self._face
        if face is None:  # `override_settings`
            face = self._face = edge.django(self._get_response)
        return face(request)

    def _forget(self, **_: object) -> None:
        self._face = None
