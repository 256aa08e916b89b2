"""Cache an endpoint at the CDN together with its GRIP instructions, and push what is saved.

See https://pushpin.org/docs/protocols/grip/ for the protocol, and README.md for how to begin.
"""

from __future__ import annotations

from grip_edge_middleware.edge import GripEdge, GripEdgeMiddleware
from grip_edge_middleware.errors import (
    DeliveryError,
    GripEdgeError,
    Mistake,
    SettingsError,
    SignatureError,
    TopicError,
)

__all__ = [
    "DeliveryError",
    "GripEdge",
    "GripEdgeError",
    "GripEdgeMiddleware",
    "Mistake",
    "SettingsError",
    "SignatureError",
    "TopicError",
]

__version__ = "0.1.0"
