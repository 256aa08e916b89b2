"""How a response leaves: the faces carry the policy's answer to each kind of app.

A face passes through what is not ours first, keeps nothing about a request on itself, and never
touches a body.
"""

from __future__ import annotations

from contextvars import ContextVar

from grip_edge_middleware.policy import Notes

# The response that the running view is making.
current_notes: ContextVar[Notes | None] = ContextVar("grip_edge_notes", default=None)
