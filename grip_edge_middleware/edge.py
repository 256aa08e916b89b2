"""GripEdge: the one object that a user holds, and the only place that picks concrete classes."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, cast

from grip_edge_middleware import sources
from grip_edge_middleware.changes import Change, Data, encode
from grip_edge_middleware.clock import EdgeClock, ManualClock
from grip_edge_middleware.delivery import Delivery, Region
from grip_edge_middleware.dispatcher import Dispatcher
from grip_edge_middleware.errors import DeliveryError, Mistake, SettingsError, TopicError
from grip_edge_middleware.http import Response
from grip_edge_middleware.journal import Journal, Reader
from grip_edge_middleware.lanes import InlineLanes, Lanes, ThreadLanes
from grip_edge_middleware.metrics import Counts, Metrics, Several
from grip_edge_middleware.middleware import flask
from grip_edge_middleware.middleware.asgi import ASGIMiddleware
from grip_edge_middleware.middleware.wsgi import WSGIMiddleware
from grip_edge_middleware.notes import current_notes
from grip_edge_middleware.outbox import Outbox
from grip_edge_middleware.policy import Policy, named_topic
from grip_edge_middleware.process import warn_of_siblings
from grip_edge_middleware.publisher import Publisher
from grip_edge_middleware.purgers import Purger
from grip_edge_middleware.purgers.akamai import AkamaiPurger
from grip_edge_middleware.purgers.akamai import Credentials as AkamaiClient
from grip_edge_middleware.purgers.cloudflare import CloudflarePurger
from grip_edge_middleware.purgers.cloudfront import CloudFrontPurger
from grip_edge_middleware.purgers.cloudfront import Credentials as AccessKey
from grip_edge_middleware.purgers.fastly import FastlyPurger
from grip_edge_middleware.purgers.generic import GenericPurger
from grip_edge_middleware.purgers.souin import SouinPurger
from grip_edge_middleware.purgers.varnish import VarnishPurger
from grip_edge_middleware.render import (
    TARGET,
    ASGIRenderer,
    OriginRenderer,
    Renderer,
    WSGIRenderer,
    is_rendering,
)
from grip_edge_middleware.settings import (
    CDN,
    Akamai,
    Cloudflare,
    CloudFront,
    Fastly,
    Generic,
    RegionSettings,
    Settings,
    Souin,
    StoreSettings,
    TopicSettings,
    Varnish,
)
from grip_edge_middleware.sockets import Socket, current_socket
from grip_edge_middleware.stores.codec import Codec
from grip_edge_middleware.stores.memory import MemoryStore
from grip_edge_middleware.stores.records import Shelf
from grip_edge_middleware.stores.shared import SharedStore
from grip_edge_middleware.topics import Topic, escape_key
from grip_edge_middleware.transport import HttpTransport, Transport
from grip_edge_middleware.types import (
    ASGIApp,
    Receive,
    Scope,
    Send,
    WSGIApplication,
)
from grip_edge_middleware.watchers import LOOK_EVERY_S, Watchers

if TYPE_CHECKING:
    from flask import Flask
    from opentelemetry.trace import TracerProvider

    from grip_edge_middleware.middleware.django import AsyncGetResponse, GetResponse


class GripEdge:
    """Caches configured routes at the CDN, holds them open, and pushes what changes.

        edge = GripEdge(app)                   # Flask, with app.config["GRIP_EDGE"]
        edge = GripEdge(settings=GRIP_EDGE)    # anything else: edge.wsgi(app), edge.asgi(app)

    Options: `app`, a Flask app to wrap at once; `settings`, the settings dict, which for Flask
    comes from `app.config` otherwise, or a callable that returns it when it is first needed;
    `environ`, where secrets may come from (default: `os.environ`); `spare_app`, a WSGI app that
    renders in a process where no app is wrapped, or none runs yet. SettingsError lists every
    mistake in the settings.
    """

    def __init__(
        self,
        app: Flask | None = None,
        *,
        settings: Mapping[str, Any] | Callable[[], object] | None = None,
        environ: Mapping[str, str] | None = None,
        spare_app: WSGIApplication | None = None,
    ) -> None:
        self._environ = os.environ if environ is None else environ
        self._is_configured_by_app = settings is None
        self._read = settings if callable(settings) else None
        self._spare_app = spare_app
        self._parts: _Parts | None = None
        self._stand_in: _StandIn | None = None
        self._making = threading.RLock()
        if settings is not None and self._read is None:
            self._parts = self._make(settings)
        if app is not None:
            self.init_app(app)

    # --- around an app ----------------------------------------------------------------------

    def init_app(self, app: Flask) -> None:
        """Wrap a Flask app, with the settings given or those in `app.config["GRIP_EDGE"]`.

        An app factory may call it for one app after the other; the edge then belongs to the last.
        """
        if self._is_configured_by_app:
            settings = Settings.parse(flask.read_config(app), self._environ)
            self.close()
            self._parts = self._start(settings)
        flask.wrap(app, self, self.wsgi)

    def wsgi(self, app: WSGIApplication) -> WSGIApplication:
        """Return a WSGI app wrapped in the face for it."""
        parts = self._configured
        renderer = parts.renderer.use_wsgi(app)
        parts.face = WSGIMiddleware(
            app, parts.policy, parts.store, renderer, longest_ttl=parts.longest_ttl
        )
        return parts.face

    def asgi(self, app: ASGIApp) -> ASGIApp:
        """Return an ASGI app wrapped in the face for it."""
        parts = self._configured
        renderer, flush = parts.renderer.use_asgi(app), parts.dispatcher.flush
        parts.face = ASGIMiddleware(
            app, parts.policy, parts.store, renderer, flush=flush, longest_ttl=parts.longest_ttl
        )
        return parts.face

    def django(
        self, get_response: GetResponse | AsyncGetResponse
    ) -> GetResponse | AsyncGetResponse:
        """Return the rest of a Django project's chain wrapped in the face for it."""
        from grip_edge_middleware.middleware import django

        parts = self._configured
        deciding = django.Deciding(parts.policy, parts.store, parts.longest_ttl)
        use_wsgi, use_asgi = parts.renderer.use_wsgi, parts.renderer.use_asgi
        face = django.wrap(get_response, deciding, use_wsgi, use_asgi)
        if isinstance(face, django.DjangoMiddleware):
            parts.face = django.RestOfWSGI(face)
        return face

    # --- in a view --------------------------------------------------------------------------

    def tag(self, /, *keys: str, **params: object) -> None:
        """Add surrogate keys to the response that the running view makes.

            edge.tag("counters", "counter-blue")
            edge.tag("counter-{name}", name=counter.name)

        The page is purged when a topic of that name changes. A value that comes from outside
        belongs in the second form. Outside of a configured route this does nothing.
        """
        notes = current_notes.get()
        if notes is None or notes.is_closed:
            return
        parts = self._configured
        filled = (
            parts.find(key, params)[1].name if params or key in parts.templates else key
            for key in keys
        )
        notes.keys.extend(escape_key(key) for key in filled if key)

    def decline_hold(self) -> None:
        """Answer the running request without holding it open: it gets no GRIP headers."""
        notes = current_notes.get()
        if notes is not None:
            notes.declines_hold = True

    @property
    def socket(self) -> Socket | None:
        """The WebSocket whose request is running, None if the request is an ordinary one.

        if edge.socket and edge.socket.is_opening:
            edge.socket.subscribe("presence-{room}", room=room)
        """
        return current_socket.get()

    @property
    def is_rendering(self) -> bool:
        """Whether it is the edge itself that asks the view of a private topic, to push its answer.

        The view must then answer without asking who it is:

            if not edge.is_rendering and not current_user.may_see(order):
                abort(403)

        No request from outside can have this true. A view whose answers the app keeps for others
        must not keep this one.
        """
        return is_rendering()

    # --- when something changed -------------------------------------------------------------

    def submit(self, topic: str, /, *, on_commit: object = None, **params: object) -> None:
        """Say that a topic changed: its pages are purged, then its routes' new answers published.

            edge.submit("counters")
            edge.submit("counter-{name}", name="blue")
            edge.submit("counters", on_commit=session)

        Call it after the commit, or name what is to be committed: a SQLAlchemy session or
        connection, a Django connection or its alias, a peewee database. TopicError if the settings
        declare no such topic, TypeError if `on_commit` is none of these.
        """
        settings, filled = self._configured.find(topic, params)
        self._configured.tell([Change(filled, settings)], on_commit)

    def publish(
        self, topic: str, data: Data, /, *, on_commit: object = None, **params: object
    ) -> None:
        """Say that a topic changed, and what to publish instead of its routes' answers.

        Text and bytes go out as they are. Anything else is encoded as JSON: as an event
        (`data: {...}`) on a stream, as the body of a long-poll's response. TypeError or ValueError
        if it cannot. `on_commit` as for `submit`.
        """
        settings, filled = self._configured.find(topic, params)
        self._configured.tell([Change(filled, settings, encode(data))], on_commit)

    def changed(self, instance: object, *, on_commit: object = None) -> None:
        """Say that a model's instance was saved by means that no source sees.

        It changes the topics whose `models` name the instance's class, and with `auto_tags` the
        pages that show its row; TopicError if there are none. `on_commit` as for `submit`.
        """
        self._configured.tell(self._configured.changes(instance), on_commit)

    def suppress(self) -> AbstractContextManager[None]:
        """Return a context in which no save is told, as for imports and fixtures.

            with edge.suppress():
                session.add_all(rows)
                session.commit()

        It counts when something is written, not when it is committed: flush within the block. What
        the edge is told by `submit`, `publish` and `changed` is told all the same.
        """
        return self._configured.observer.suppress()

    def follow(self, target: object) -> None:
        """Listen to a SQLAlchemy engine on which no session works, before it is used.

        TypeError if it is none. Other libraries' databases are met by themselves.
        """
        if not any(source.follow(target) for source in self._configured.connected()):
            raise TypeError(f"there is nothing to follow in {_name(target)}")

    def flush(self, timeout: float | None = None) -> bool:
        """Deliver all that is pending now, within `timeout` seconds; return whether it was.

        From a coroutine: `await asyncio.to_thread(edge.flush)`.
        """
        return self._configured.dispatcher.flush(timeout)

    def dispatch(self, is_over: threading.Event) -> None:
        """Send what other processes submit, until the event is set: `grip-edge dispatch` does it.

        SettingsError if there is no store that processes share.
        """
        parts = self._configured
        if not isinstance(parts.store, SharedStore):
            hint = 'set store to "redis://..." or "sqlite:///..."'
            raise SettingsError([Mistake("store", "other processes do not share this one", hint)])
        parts.store.sends = True
        parts.dispatcher.start()
        is_over.wait()
        self.close()

    def health(self) -> dict[str, Any]:
        """Return how this process's edge fares, as plain values without secrets.

        `pending` counts topics that some target misses, of those that this process is to send, and
        `pending_age_s` is how long ago the oldest change of these was submitted, else 0;
        `store` is "failing" while a shared store does not answer, else "ok"; `escalated` lists the
        keys that wait in place of topics for which there was no room. `longest_ttl` is the limit to
        what a CDN may keep while its purges fail, else None. `targets` has for each CDN and GRIP
        proxy its `state` ("ok", "failing", or "down" from the fourth failure in a row), `failures`,
        `failing_for_s`, `retry_in_s` and its last `error`. `counts` are since the start.
        """
        return self._configured.health()

    def close(self) -> None:
        """Deliver what is pending, for at most `flush_timeout`, and stop listening to saves.

        Called by itself at exit.
        """
        if self._parts is not None:
            self._parts.close()

    @contextmanager
    def sending_through(self, lanes: Lanes, clock: ManualClock | None = None) -> Iterator[None]:
        """Have all requests to CDNs and GRIP proxies sent by `lanes` while a block lasts.

        For tests; `grip_edge_middleware.testing` has what they need. What is pending when the block
        begins, and when it ends, is forgotten. With a `clock` there is no thread: what is submitted
        waits for a `flush`, and windows end when the clock says so.
        """
        if self._stand_in is not None:
            raise RuntimeError("something else takes what this edge sends already, until it ends")
        self._set_stand_in(_StandIn(lanes, clock))
        try:
            yield
        finally:
            self._set_stand_in(None)

    def _set_stand_in(self, stand_in: _StandIn | None) -> None:
        if self._parts is not None:
            self._parts.start_anew(stand_in)
        self._stand_in = stand_in

    @property
    def settings(self) -> Settings:
        """The settings, read and valid. SettingsError if there are none yet."""
        return self._configured.settings

    @property
    def face(self) -> WSGIApplication | ASGIMiddleware | None:
        """The app that is wrapped in this process, if any, as a server would call it."""
        return self._configured.face

    def start(self) -> None:
        """Read the settings and listen to what is saved now, and not only when first used."""
        self._configured  # noqa: B018 - it makes what it returns

    def reload(self) -> None:
        """Deliver what is pending, and read the settings anew when they are next needed.

        For settings that a callable returns. Faces that were made before keep the old ones.
        """
        with self._making:
            self.close()
            self._parts = None

    def _make(self, settings: object) -> _Parts:
        return self._start(Settings.parse(settings, self._environ))

    def _start(self, settings: Settings) -> _Parts:
        parts = _Parts(settings, self._spare_app)
        if self._stand_in is not None:
            parts.start_anew(self._stand_in)
        return parts

    @property
    def _configured(self) -> _Parts:
        if self._parts is None and self._read is not None:
            with self._making:
                self._parts = self._parts or self._make(self._read())
        if self._parts is None:
            hint = "call init_app(app) first, or GripEdge(settings=...)"
            raise SettingsError([Mistake("GRIP_EDGE", "no settings yet", hint)])
        return self._parts


@dataclass(frozen=True, slots=True)
class _StandIn:
    """What a test has in the place of the network and of the machine's time."""

    lanes: Lanes
    clock: ManualClock | None


class _Parts:
    """What one settings dict is made into."""

    def __init__(self, settings: Settings, spare_app: WSGIApplication | None) -> None:
        self.settings = settings
        self.templates = {t.template.text for t in settings.topics if t.template.params}
        self.counts = Counts()
        self.metrics = _metrics(settings, self.counts)
        self.watchers = Watchers()
        self.journal = Journal(self.metrics, self.watchers, *_tracing(settings))
        self.policy = Policy(settings, self.metrics)
        self._named = lru_cache(maxsize=1024)(lambda name: named_topic(settings.topics, name, {}))
        self._look_at = -math.inf
        self.face: WSGIApplication | ASGIMiddleware | None = None
        transport = HttpTransport(timeout_s=settings.timeout)
        self.clock = EdgeClock()
        self.renderer = _AppRenderer(settings, transport, spare_app)
        self._lanes = _lanes(settings, transport)
        self.delivery = Delivery(
            lanes=self._lanes,
            trunk=_region(settings.trunk),
            regions=[_region(region) for region in settings.regions],
            renderer=self.renderer,
            journal=self.journal,
            render_budget_s=settings.timeout,
            purge_deadline_s=settings.purge_deadline,
            clock=self.clock,
            pause=self.clock.pause,
        )
        self.store = _store(settings, self.clock)
        self.dispatcher = Dispatcher(
            store=self.store,
            delivery=self.delivery,
            metrics=self.metrics,
            flush_timeout_s=settings.flush_timeout,
            after_turn=self._say_how_it_fares,
            clock=self.clock,
        )
        self.outbox = self._make_outbox()
        self.observer = sources.Observer.of(
            settings, self.dispatcher.submit, self.metrics, self.outbox
        )
        self.sources = [] if self.observer.is_idle else sources.connect(self.observer)

    def _make_outbox(self) -> Outbox | None:
        if self.settings.outbox is None:
            return None
        return Outbox(
            self.settings.topics,
            submit=self.dispatcher.submit,
            submitted=self.store.submitted,
            delivered=self.store.delivered,
            finish=self.dispatcher.close,
            metrics=self.metrics,
            throttle_s=self.settings.throttle,
            grace_s=self.settings.outbox.grace,
            name=self.settings.outbox.name,
        )

    def find(self, name: str, params: Mapping[str, object]) -> tuple[TopicSettings, Topic]:
        """Return a topic by its name, or by its template and values."""
        return named_topic(self.settings.topics, name, params) if params else self._named(name)

    def changes(self, instance: object) -> list[Change]:
        """Return what an update of the instance changes."""
        for source in self.sources:
            if (changes := source.changes(instance)) is not None:
                break
        else:
            changes = self.observer.watches.changes("update", instance, {})
        if not changes and not self.observer.watches.find(type(instance)):
            raise TopicError(f"no topic has {type(instance).__qualname__} among its models")
        return changes

    def tell(self, changes: Sequence[Change], on_commit: object) -> None:
        """Dispatch the changes, or have them wait for a commit."""
        if on_commit is None:
            self.dispatcher.submit(changes)
            return
        if not any(source.defer(on_commit, changes) for source in self.connected()):
            raise TypeError(f"on_commit: there is nothing to wait for in {_name(on_commit)}")

    def connected(self) -> list[sources.Source]:
        """Return the sources, also if no model is watched."""
        self.sources = self.sources or sources.connect(self.observer)
        return self.sources

    def longest_ttl(self) -> int | None:
        """Bound what a page that cannot be purged may be behind."""
        is_well = self.delivery.can_purge() and not self.store.is_failing
        return None if is_well else self.settings.degraded_ttl

    def start_anew(self, stand_in: _StandIn | None) -> None:
        """Forget what is pending, and send through the stand-in from now on, if there is one."""
        clock = None if stand_in is None else stand_in.clock
        if clock is not None and not self.store.is_local:
            hint = 'set "memory" in the tests, or GRIP_EDGE_STORE=memory'
            raise SettingsError([Mistake("store", "a shared one keeps its own time", hint)])
        self.dispatcher.end_thread()
        self.clock.manual = clock
        self.renderer.asks_origin = stand_in is None
        self.delivery.targets.lanes = self._lanes if stand_in is None else stand_in.lanes
        self.dispatcher.start_anew(has_thread=clock is None)

    def health(self) -> dict[str, Any]:
        if self.store.is_local:  # else it may have to be waited for
            self.dispatcher.take_in()
        return {
            "pending": self.store.pending(),
            "pending_age_s": round(self._pending_age_s(), 3),
            "store": "failing" if self.store.is_failing else "ok",
            "escalated": self.store.escalated(),
            "longest_ttl": self.longest_ttl(),
            "targets": self.delivery.targets.report(),
            "counts": self.counts.snapshot(),
        }

    def _pending_age_s(self) -> float:
        since = self.store.pending_since()
        return 0.0 if since is None else max(0.0, self.clock() - since)

    def _say_how_it_fares(self) -> None:
        """Tell the metrics, and whoever watches: what takes longer, once a second at most."""
        pending, now = self.store.pending(), self.clock()
        self.metrics.gauge("pending", pending)
        if not pending:
            self.metrics.gauge("pending_age_s", 0.0)
        if now < self._look_at:
            return
        self._look_at = now + LOOK_EVERY_S
        if pending:
            self.metrics.gauge("pending_age_s", self._pending_age_s())
        if self.watchers.is_watched():
            self.journal.write("health", detail=self.health())

    def close(self) -> None:
        for source in self.sources:
            source.disconnect()
        if self.outbox is not None:
            self.outbox.close()
        self.dispatcher.close()
        self.watchers.close()


def _name(found: object) -> str:
    return f"an instance of {type(found).__module__}.{type(found).__qualname__}"


def _metrics(settings: Settings, counts: Counts) -> Metrics:
    found = settings.metrics
    if found is None:
        return counts
    return Several([counts, _prometheus() if found == "prometheus" else found])


def _prometheus() -> Metrics:
    try:
        from grip_edge_middleware.metrics.prometheus import of_default_registry
    except ImportError as error:
        raise _lacks("metrics", "Prometheus", "prometheus", error) from None
    return of_default_registry()


def _tracing(settings: Settings) -> Iterator[Reader]:
    if settings.tracing is False:
        return
    try:
        from grip_edge_middleware.tracing import Tracing
    except ImportError as error:
        raise _lacks("tracing", "OpenTelemetry", "opentelemetry", error) from None
    yield Tracing(None if settings.tracing is True else cast("TracerProvider", settings.tracing))


def _lacks(setting: str, what: str, extra: str, error: ImportError) -> SettingsError:
    hint = f"pip install 'grip-edge-middleware[{extra}]'"
    return SettingsError([Mistake(setting, f"{what} needs the {extra} extra: {error}", hint)])


def _lanes(settings: Settings, transport: Transport) -> Lanes:
    """One target holds up nobody but itself."""
    has_several = len(settings.cdns) + len(settings.proxies) > 1
    return ThreadLanes(transport) if has_several else InlineLanes(transport)


def _region(region: RegionSettings) -> Region:
    return Region(
        tuple(make_purger(cdn, region.name) for cdn in region.cdns),
        tuple(Publisher(proxy, region=region.name) for proxy in region.proxies),
    )


def make_purger(cdn: CDN, region: str) -> Purger:
    """Return what purges a CDN of a region."""
    match cdn:
        case Varnish():
            return VarnishPurger(cdn.url, soft=cdn.soft, region=region)
        case Fastly():
            return FastlyPurger(
                cdn.service_id, cdn.token, url=cdn.url, soft=cdn.soft, region=region
            )
        case Souin():
            return SouinPurger(cdn.url, path=cdn.path, region=region)
        case Cloudflare():
            return CloudflarePurger(cdn.zone_id, cdn.token, url=cdn.url, region=region)
        case CloudFront():
            return _cloudfront(cdn, region)
        case Akamai():
            return _akamai(cdn, region)
        case Generic():
            return _generic(cdn, region)


def _cloudfront(cdn: CloudFront, region: str) -> Purger:
    key = AccessKey(cdn.access_key_id, cdn.secret_access_key, cdn.session_token)
    return CloudFrontPurger(cdn.distribution_id, key, url=cdn.url, region=region)


def _akamai(cdn: Akamai, region: str) -> Purger:
    client = AkamaiClient(cdn.client_token, cdn.client_secret, cdn.access_token)
    return AkamaiPurger(cdn.host, client, network=cdn.network, soft=cdn.soft, region=region)


def _generic(cdn: Generic, region: str) -> Purger:
    return GenericPurger(
        cdn.url,
        dialect=cdn.dialect,
        method=cdn.method,
        name=cdn.name,
        is_json=cdn.keys_in == "json",
        separator=cdn.separator,
        headers=cdn.headers,
        body=cdn.body,
        ok=cdn.ok,
        region=region,
    )


def _store(settings: Settings, clock: EdgeClock) -> MemoryStore | SharedStore:
    if settings.store is None:
        return MemoryStore(
            max_pending=settings.max_pending,
            confirm_after_s=settings.confirm_after,
            replica_lag_s=settings.replica_lag,
            clock=clock,
            when_served=partial(warn_of_siblings, _identity(settings)),
        )
    return SharedStore(
        make_shelf(settings.store, settings),
        max_pending=settings.max_pending,
        confirm_after_s=settings.confirm_after,
        replica_lag_s=settings.replica_lag,
        sends=not settings.is_external,
        when_lost=[Change.of_site(settings.topics)],
        clock=clock,
    )


def _identity(settings: Settings) -> str:
    """Return what is the same in all workers of an app, and hardly in another app."""
    names = [topic.template.text for topic in settings.topics]
    return repr((names, settings.trunk, settings.regions))


def make_shelf(store: StoreSettings, settings: Settings) -> Shelf:
    """Return where processes share what is pending. SettingsError if its library is missing."""
    codec = Codec(settings.topics, throttle_s=settings.throttle)
    if store.kind == "sqlite":
        from grip_edge_middleware.stores.sqlite import SQLiteShelf

        return SQLiteShelf(store.url, codec)
    try:
        from grip_edge_middleware.stores.redis import RedisShelf
    except ImportError as error:
        raise _lacks("store", "Redis", "redis", error) from None
    return RedisShelf(store.url, codec, name=store.name)


class _AppRenderer:
    """Renders in the app that was wrapped last, or by the origin where no app can."""

    def __init__(
        self, settings: Settings, transport: HttpTransport, spare_app: WSGIApplication | None
    ) -> None:
        self._settings = settings
        self._origin = settings.origin and OriginRenderer(settings.origin, transport)
        self._spare = spare_app and self._wsgi(spare_app)
        self._app: WSGIRenderer | ASGIRenderer | None = None
        self.asks_origin = True

    def use_wsgi(self, app: WSGIApplication) -> WSGIRenderer:
        self._app = renderer = self._wsgi(app)
        return renderer

    def use_asgi(self, app: ASGIApp) -> ASGIRenderer:
        settings = self._settings
        renderer = ASGIRenderer(app, timeout_s=settings.timeout, origin=settings.origin)
        self._app = renderer
        return renderer

    def _wsgi(self, app: WSGIApplication) -> WSGIRenderer:
        settings = self._settings
        return WSGIRenderer(app, timeout_s=settings.timeout, origin=settings.origin)

    def render(self, path: str, accept: str | None, *, is_private: bool = False) -> Response:
        renderer: Renderer | None = self._app
        origin = self._origin if self.asks_origin else None
        if renderer is None or (isinstance(renderer, ASGIRenderer) and not renderer.is_attached):
            renderer = self._spare or origin or renderer
        if renderer is None:
            raise DeliveryError(TARGET, "no app was wrapped in this process; set origin")
        return renderer.render(path, accept, is_private=is_private)


class GripEdgeMiddleware:
    """The edge in a Starlette or FastAPI stack.

        Middleware(GripEdgeMiddleware, settings=GRIP_EDGE)
        Middleware(GripEdgeMiddleware, edge=edge)    # to call edge.tag and the like in views

    Options: `settings`, the settings dict, or `edge`, a GripEdge that has them.
    """

    def __init__(
        self,
        app: ASGIApp,
        settings: Mapping[str, Any] | None = None,
        *,
        edge: GripEdge | None = None,
    ) -> None:
        if (settings is None) == (edge is None):
            hint = "GripEdgeMiddleware takes either settings=... or edge=..."
            raise SettingsError([Mistake("GRIP_EDGE", "given twice or not at all", hint)])
        self.edge = edge or GripEdge(settings=settings)
        self.app = self.edge.asgi(app)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the scope to the face."""
        await self.app(scope, receive, send)
