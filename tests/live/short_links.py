"""The Flask example, with next links that fall due every few seconds."""

from grip_edge_middleware import policy

policy.NEXT_LINK_TIMEOUT_S = 3  # type: ignore[attr-defined]

from examples.flask_app.app import app  # noqa: E402

__all__ = ["app"]
