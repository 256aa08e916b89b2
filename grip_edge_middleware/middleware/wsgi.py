"""The face for any WSGI app (PEP 3333)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from grip_edge_middleware.middleware import current_notes
from grip_edge_middleware.policy import Notes, Policy, RequestFacts
from grip_edge_middleware.stores import Gate
from grip_edge_middleware.types import Headers, StartResponse, WSGIApplication, WSGIEnvironment


class WSGIMiddleware:
    """Adds the policy's headers to the responses of `app`.

    `attach` is called with the environ of each configured request.
    """

    def __init__(
        self,
        app: WSGIApplication,
        policy: Policy,
        gate: Gate,
        *,
        attach: Callable[[WSGIEnvironment], None],
    ) -> None:
        self.app = app
        self.policy = policy
        self.gate = gate
        self._attach = attach

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Call the app, with a `start_response` of ours on configured routes only."""
        plan = self.policy.match(_path(environ))
        if plan is None:
            return self.app(environ, start_response)
        self._attach(environ)
        notes = Notes()
        request = RequestFacts(
            environ["REQUEST_METHOD"],
            environ.get("HTTP_ACCEPT", ""),
            is_authorized="HTTP_AUTHORIZATION" in environ,
            # Read before the app reads anything.
            has_changed=partial(self.gate.has_changed, since=self.gate.sequence()),
        )

        def start_with_headers(status: str, headers: Headers, *exc_info: Any) -> Any:
            notes.is_closed = True
            code = int(status[:3]) if status[:3].isdigit() else 0
            return start_response(status, plan.apply(request, code, headers, notes), *exc_info)

        token = current_notes.set(notes)
        try:
            return self.app(environ, start_with_headers)
        finally:
            # An app that starts its response only when its body is read may still tag it. Its
            # notes stay until the context's next request.
            if notes.is_closed:
                current_notes.reset(token)


def _path(environ: WSGIEnvironment) -> str:
    # PEP 3333: the decoded bytes of the path, as latin-1 text.
    path: str = environ.get("PATH_INFO", "")
    return path if path.isascii() else path.encode("latin-1").decode("utf-8", "replace")
