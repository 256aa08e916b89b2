"""The topics, their routes and models, and what must be true of them together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import combinations
from typing import Any

from grip_edge_middleware.grip import Proxy
from grip_edge_middleware.settings import OPERATIONS, Model, Route, TopicSettings, checks
from grip_edge_middleware.settings.defaults import ROUTE_DEFAULTS, TOPIC_DEFAULTS, TOPIC_ONLY
from grip_edge_middleware.settings.reader import Reader
from grip_edge_middleware.settings.wording import nearest, show
from grip_edge_middleware.topics import overlap
from grip_edge_middleware.types import Hold


def read_topics(
    reader: Reader, found: object, defaults: Mapping[str, Any]
) -> tuple[TopicSettings, ...]:
    """Return `topics`."""
    if not isinstance(found, Mapping) or not found:
        reader.wrong(
            "topics",
            f"expected a dict of topics, got {show(found)}",
            'for example {"counter-{name}": {"routes": ["/counters/{name}/"]}}',
        )
        return ()
    topics = [_topic(reader, f"topics[{show(n)}]", n, t, defaults) for n, t in found.items()]
    valid = tuple(topic for topic in topics if topic is not None)
    _check_names(reader, valid)
    _check_holds(reader, valid)
    return valid


def _topic(
    reader: Reader, path: str, name: object, found: object, defaults: Mapping[str, Any]
) -> TopicSettings | None:
    template = reader.attempt(path, checks.template, name)
    if not isinstance(found, Mapping):
        reader.wrong(path, f"expected a dict, got {show(found)}")
        return None
    reader.names(path, found, (*TOPIC_ONLY, *TOPIC_DEFAULTS, *ROUTE_DEFAULTS))
    values = reader.values(path, found, defaults)
    routes = reader.many(
        f"{path}.routes", found.get("routes", ()), partial(_route, reader, defaults=values)
    )
    models = reader.many(f"{path}.models", found.get("models", ()), partial(_model, reader))
    if template is None:
        return None
    topic = TopicSettings(
        template,
        routes,
        models,
        throttle=values["throttle"],
        payload=reader.attempt(f"{path}.payload", checks.function, found.get("payload")),
        coalesce=values["coalesce"],
        recovery=values["recovery"],
        refetch=values["refetch"],
        private=values["private"],
        auto_tags=values["auto_tags"],
    )
    _check_rendering(reader, path, topic)
    _check_params(reader, path, topic)
    return topic


def _route(reader: Reader, path: str, found: object, defaults: Mapping[str, Any]) -> Route | None:
    entry: Mapping[Any, Any] = (
        {"path": found} if isinstance(found, str) else checks.path_or_dict(found)
    )
    reader.names(path, entry, ("path", *ROUTE_DEFAULTS))
    values = reader.values(path, entry, {n: defaults[n] for n in ROUTE_DEFAULTS})
    pattern = reader.attempt(path, checks.pattern, entry.get("path"))
    return None if pattern is None else Route(pattern, **values)


def _model(reader: Reader, path: str, found: object) -> Model | None:
    if not isinstance(found, Mapping):
        return Model(checks.model(found))
    reader.names(path, found, ("model", "on", "when", "params"))
    model = reader.attempt(f"{path}.model", checks.model, found.get("model"))
    on = reader.attempt(f"{path}.on", checks.operations, found.get("on", OPERATIONS))
    when = reader.attempt(f"{path}.when", checks.function, found.get("when"))
    params = reader.attempt(f"{path}.params", checks.params, found.get("params", {}))
    return None if model is None else Model(model, on or frozenset(), when, params or {})


def _check_names(reader: Reader, topics: Sequence[TopicSettings]) -> None:
    for one, other in combinations(topics, 2):
        first, second = one.template.literals[0], other.template.literals[0]
        if not first.startswith(second) and not second.startswith(first):
            continue
        if (name := overlap(one.template, other.template)) is not None:
            reader.wrong(
                f"topics[{show(other.template.text)}]",
                f"{name!r} is also a name of topic {one.template.text!r}, "
                "so that each would get what is meant for the other",
                'rename one, or separate with ":" as in "list:{id}", which no value contains',
            )


def _check_holds(reader: Reader, topics: Sequence[TopicSettings]) -> None:
    """A response is held in one way, whichever topics it shows."""
    held: dict[tuple[str, str | None], Route] = {}
    for topic in topics:
        for route in topic.held_routes.values():
            if route.hold == "ws":  # its requests are told apart by themselves
                continue
            first = held.setdefault((route.pattern.regex.pattern, route.accept), route)
            if first.hold != route.hold:
                reader.wrong(
                    f"topics[{show(topic.template.text)}].routes",
                    f'{route.pattern.text} has hold "{route.hold}" here and '
                    f'"{first.hold}" in another topic',
                    "use one of them, or tell the requests apart with accept",
                )


def check_private(
    reader: Reader, topics: Sequence[TopicSettings], proxies: Sequence[Proxy]
) -> None:
    """Who may see a page is decided by its view, and who may hold it by the proxy's word."""
    has_keys = proxies and all(proxy.verify_key for proxy in proxies)
    for topic in topics if not has_keys else ():
        if topic.private and topic.held_routes:
            reader.wrong(
                f"topics[{show(topic.template.text)}].private",
                "no verify key tells the requests of a GRIP proxy from anybody's",
                "set GRIP_VERIFY_KEY to the proxy's sig_key, or verify-key in grip_url",
            )
    seen: dict[str, bool] = {}
    for topic in topics:
        path = f"topics[{show(topic.template.text)}]"
        for route in topic.routes:
            if topic.private and route.public:
                reader.wrong(f"{path}.private", f"{route.pattern.text} is public", "choose one")
            if seen.setdefault(route.pattern.regex.pattern, topic.private) != topic.private:
                reader.wrong(
                    f"{path}.private",
                    f"{route.pattern.text} is private in one topic and not in another",
                    "make both private, or give them pages of their own",
                )


def check_sockets(
    reader: Reader, topics: Sequence[TopicSettings], proxies: Sequence[Proxy]
) -> None:
    """Who speaks for a WebSocket is known by the proxy's word only."""
    if proxies and all(proxy.verify_key for proxy in proxies):
        return
    for topic in topics:
        if "ws" in topic.held_routes:
            reader.wrong(
                f"topics[{show(topic.template.text)}].hold",
                '"ws", and no verify key tells the requests of a GRIP proxy from anybody\'s',
                "set GRIP_VERIFY_KEY to the proxy's sig_key, or verify-key in grip_url",
            )


def _check_rendering(reader: Reader, path: str, topic: TopicSettings) -> None:
    """What is published is what a route answers, so it must follow from the topic."""
    if topic.payload is not None:
        return
    held: dict[Hold, Route] = {}
    for route in topic.routes:
        if route.hold is None:
            continue
        if (first := held.setdefault(route.hold, route)) is not route:
            reader.wrong(
                f"{path}.routes",
                f'{first.pattern.text} and {route.pattern.text} both have hold "{route.hold}", '
                "so it is open which of them is published",
                "set a payload, or give each a topic of its own",
            )
        for name in route.pattern.params:
            if name not in topic.template.params:
                reader.wrong(
                    f"{path}.routes",
                    f"{route.pattern.text} is held and has the parameter {name!r}, which the "
                    "topic's name lacks, so its body cannot be rendered for the topic",
                    f"add {{{name}}} to the topic's name, or set a payload",
                )


def _check_params(reader: Reader, path: str, topic: TopicSettings) -> None:
    """Every parameter of the name comes from each of its routes."""
    for route in topic.routes:
        for name in topic.template.params:
            if name not in route.pattern.params:
                reader.wrong(
                    f"{path}.routes",
                    f"{route.pattern.text} has no parameter {name!r} to fill the topic's name",
                    nearest(name, route.pattern.params)
                    or f"add <{name}> to the path, or tag the response in the view",
                )
    for position, model in enumerate(topic.models):
        for name in model.params:
            if name not in topic.template.params:
                reader.wrong(
                    f"{path}.models[{position}].params[{name!r}]",
                    "the topic's name has no such parameter",
                    nearest(name, topic.template.params),
                )
