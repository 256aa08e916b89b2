"""An edge that the settings describe: keys in a header of the request, or in its JSON."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from grip_edge_middleware.dialects import Dialect
from grip_edge_middleware.errors import DeliveryError
from grip_edge_middleware.http import Request, Response
from grip_edge_middleware.purgers import PurgeBatch, split


class GenericPurger:
    """Asks `method url` with the keys in the header `name`, or with `body` and them as `name`.

    Without a `separator` the keys are a list in the JSON, else one text. `ok` are the statuses
    that acknowledge.
    """

    def __init__(
        self,
        url: str,
        *,
        dialect: Dialect,
        method: str = "PURGE",
        name: str = "Surrogate-Key",
        is_json: bool = False,
        separator: str | None = " ",
        headers: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        ok: Collection[int] = (200, 204),
        region: str = "",
    ) -> None:
        # Not the path: it may have a token.
        self.name = f"{region} generic {urlsplit(url).netloc}".lstrip()
        self.settle_s = dialect.settle_s
        self._url = url
        self._dialect = dialect
        self._method = method
        self._member = name
        self._is_json = is_json
        self._separator = separator
        self._headers = dict(headers or {})
        self._body = dict(body or {})
        self._ok = frozenset(ok)

    def batches(self, keys: Iterable[str]) -> Iterator[PurgeBatch]:
        """Split the keys into requests as the settings say."""
        for batch in split(keys, self._dialect, self._separator or " "):
            yield PurgeBatch(batch, self._request(batch))

    def check(self, response: Response) -> None:
        """Accept the statuses that the settings name."""
        if response.status not in self._ok:
            raise DeliveryError(self.name, f"answered {response.status} to a purge")

    def _request(self, keys: tuple[str, ...]) -> Request:
        if not self._is_json:
            line = {self._member: (self._separator or " ").join(keys)}
            return Request(self._method, self._url, {**self._headers, **line})
        said = list(keys) if self._separator is None else self._separator.join(keys)
        body = json.dumps({**self._body, self._member: said}).encode()
        headers = {"Content-Type": "application/json", **self._headers}
        return Request(self._method, self._url, headers, body)
