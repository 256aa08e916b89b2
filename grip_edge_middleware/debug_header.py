"""`Grip-Edge-Debug`: what was decided about a response, for whoever knows the secret.

Pure: values only. A dictionary of https://www.rfc-editor.org/rfc/rfc9651, a member on each line.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from grip_edge_middleware.types import Headers

NAME = "Grip-Edge-Debug"

Said = str | int | Sequence[str] | None


def build_debug(said: Mapping[str, Said], why: Mapping[str, str]) -> Headers:
    """Return the header's lines. None is no; `why` says the reason, by the same names."""
    return [
        (NAME, f"{name}={_value(value)}" + (f";why={_string(why[name])}" if why.get(name) else ""))
        for name, value in said.items()
    ]


def _value(said: Said) -> str:
    match said:
        case None:
            return "?0"
        case int():
            return str(said)
        case str():
            return _string(said)
    return f"({' '.join(map(_string, said))})"


def _string(text: str) -> str:
    # A path of the settings may have any letter; a header's string has printable ASCII only.
    plain = text.encode("ascii", "backslashreplace").decode()
    printable = "".join(char if char.isprintable() else "?" for char in plain)
    return '"' + printable.replace("\\", "\\\\").replace('"', '\\"') + '"'
