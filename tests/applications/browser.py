"""Who fills in the forms of a site's own pages."""

from __future__ import annotations

from typing import Any
from urllib.parse import urljoin

from bs4 import BeautifulSoup, Tag
from werkzeug.test import Client, TestResponse


class Browser:
    """Keeps cookies, and sends a form with all fields as the page has them but those it changes."""

    def __init__(self, app: Any) -> None:
        self._client = Client(app)

    def get(self, url: str) -> TestResponse:
        response = self._client.get(url, follow_redirects=True)
        assert response.status_code == 200, (url, response.status)
        return response

    def post(self, url: str) -> None:
        """Send nothing, as a page's script does."""
        response = self._client.post(url)
        assert response.status_code == 200, (url, response.status)

    def submit(self, page: str, form: str, /, **changes: object) -> None:
        """Send the first form of a page that a CSS selector finds. It must lead elsewhere.

        A change to None takes the field out.
        """
        shown = BeautifulSoup(self.get(page).get_data(), "html.parser")
        found = shown.select_one(form)
        assert found is not None, f"{page} has no {form}: {[f.attrs for f in shown.select('form')]}"
        sent = {**dict(_fields(found)), **changes}
        data = {name: value for name, value in sent.items() if value is not None}
        url = urljoin(page, str(found.get("action", "")))
        response = self._client.post(url, data=data)
        assert response.status_code in (302, 303), (page, _mistakes(response) or response.status)


def _fields(form: Tag) -> list[tuple[str, Any]]:
    fields: list[tuple[str, Any]] = []
    for field in form.select("input[name], textarea[name], select[name]"):
        name = str(field["name"])
        if field.name == "textarea":
            fields.append((name, field.get_text().removeprefix("\n")))
        elif field.name == "select":
            chosen = [o.get("value", o.get_text()) for o in field.select("option[selected]")]
            fields.append((name, chosen))
        elif field.get("type") in ("checkbox", "radio"):
            if field.has_attr("checked"):
                fields.append((name, field.get("value", "on")))
        elif field.get("type") not in ("file", "submit", "button"):
            fields.append((name, field.get("value", "")))
    return fields


def _mistakes(response: TestResponse) -> str:
    page = BeautifulSoup(response.get_data(), "html.parser")
    said = page.select(".errorlist, .error-block, .error-message, .alert-danger, .invalid-feedback")
    return " | ".join(dict.fromkeys(each.get_text(" ", strip=True) for each in said))
