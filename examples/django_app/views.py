"""The counter's API as the article has it, and a page that shows it."""

from django.db.models import F
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.shortcuts import get_object_or_404, render

from examples.django_app.models import Counter


def counter(request: HttpRequest, name: str) -> HttpResponse:
    """POST counts one more. GET answers an event to who asks for a stream, else a number."""
    found = get_object_or_404(Counter, name=name)
    match request.method:
        case "GET":
            return show(request, found)
        case "POST":
            return increment(found)
        case "OPTIONS":
            return HttpResponse()
    return HttpResponseNotAllowed(["OPTIONS", "GET", "POST"])


def show(request: HttpRequest, counter: Counter) -> HttpResponse:
    if "text/event-stream" in request.headers.get("Accept", ""):
        body, content_type = f"event: message\ndata: {counter.value}\n\n", "text/event-stream"
    else:
        body, content_type = f"{counter.value}\n", "text/plain"
    return HttpResponse(body, content_type=content_type, headers={"Vary": "Accept"})


def increment(counter: Counter) -> HttpResponse:
    counter.value = F("value") + 1  # computed by the database: increments at once all count
    counter.save(update_fields=["value"])
    counter.refresh_from_db()
    return HttpResponse(f"{counter.value}\n", content_type="text/plain")


def page(request: HttpRequest, name: str) -> HttpResponse:
    return render(request, "counter.html", {"counter": get_object_or_404(Counter, name=name)})
