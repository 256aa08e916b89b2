"""A search engine for haystack that searches the shop's own database.

Those that are published keep an index beside it, of which no statement tells what a page shows; one
comes with haystack that reads the database, but finds nothing for a category.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from haystack.backends import BaseEngine, BaseSearchBackend, BaseSearchQuery, log_query
from haystack.models import SearchResult


class Backend(BaseSearchBackend):  # type: ignore[misc]
    def update(self, index: Any, iterable: Any, commit: bool = True) -> None:
        """There is nothing beside the database."""

    def remove(self, obj: Any, commit: bool = True) -> None:
        """There is nothing beside the database."""

    @log_query  # type: ignore[untyped-decorator]
    def search(self, query_string: str, **kwargs: Any) -> dict[str, Any]:
        from oscar.apps.catalogue.models import Product

        wanted: dict[str, Any] = json.loads(query_string)
        found = Product.objects.browsable().order_by("pk")
        if "category" in wanted:
            found = found.filter(categories__in=wanted["category"]).distinct()
        if "content" in wanted:
            found = found.filter(title__icontains=wanted["content"])
        first, last = kwargs.get("start_offset", 0), kwargs.get("end_offset")
        pks = list(found.values_list("pk", flat=True))
        results = [SearchResult("catalogue", "product", pk, 0) for pk in pks[first:last]]
        return {"results": results, "hits": len(pks), "facets": {}}


class Query(BaseSearchQuery):  # type: ignore[misc]
    def build_query(self) -> str:
        named = ((name.partition("__")[0], value) for name, value in _leaves(self.query_filter))
        return json.dumps({n: list(v) if n == "category" else str(v) for n, v in named})


def _leaves(node: Any) -> Iterator[tuple[str, Any]]:
    for child in node.children:
        if isinstance(child, tuple):
            yield child
        else:
            yield from _leaves(child)


class Engine(BaseEngine):  # type: ignore[misc]
    backend = Backend
    query = Query
