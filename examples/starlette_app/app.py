"""A live auction: Starlette and async SQLAlchemy (aiosqlite) behind a cache and a GRIP proxy.

    browser ── Pushpin (holds the connections) ── Varnish (caches) ── this app

A lot's page opens two streams, each of a topic of its own: the lot's price and its latest bids.
Both topics name the page too, and the cache knows it by both. A bid inserts one row and updates
another in one commit; every topic that shows either, the list of all lots included, is purged and
pushed, once. `python examples/demo.py starlette` runs it with its edge; beside an edge that runs
already, `uvicorn app:app` in this folder will do. Then:

* Open a lot in two windows through Pushpin, the list of lots in a third, and bid. All three move.
  (Not many more: over HTTP/1.1 a browser has six connections to a host, and a stream holds one.)
* Bid less than the price, or twice at once: one wins, the other is a 409. (The number of bids is
  the row's version: of two that read the same one, the second to be written fails.)
* `curl -N localhost:7999/auctions/1/events` and, beside it,
  `curl -d bidder=ann -d amount=5000 localhost:7999/auctions/1/bids`.
* Stop the app: pages still open and streams stay up. Start it again and bid.

Environment: GRIP_URL (Pushpin's control port), EDGE_CDN (the cache to purge), DATABASE_URL.
"""

import json
import os
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import ForeignKey, exc, orm, select
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.templating import Jinja2Templates

from grip_edge_middleware import GripEdge, GripEdgeMiddleware

EXAMPLES = Path(__file__).parents[1]
LOTS = {"Ship's chronometer": 1200, "Writing desk": 640, "Folding camera": 180, "Sea chart": 95}

engine = create_async_engine(os.environ.get("DATABASE_URL", "sqlite+aiosqlite:///auctions.sqlite3"))
sessions = async_sessionmaker(engine, expire_on_commit=False)
templates = Jinja2Templates([EXAMPLES / "starlette_app" / "templates", EXAMPLES / "page"])


class Base(DeclarativeBase):
    id: Mapped[int] = mapped_column(primary_key=True)

    def as_dict(self) -> dict[str, Any]:
        return {column.key: getattr(self, column.key) for column in self.__table__.columns}


class Auction(Base):
    __tablename__ = "auction"
    title: Mapped[str]
    price: Mapped[int]
    bids: Mapped[int] = mapped_column(default=0)
    __mapper_args__ = {"version_id_col": bids, "version_id_generator": False}  # noqa: RUF012


class Bid(Base):
    __tablename__ = "bid"
    auction_id: Mapped[int] = mapped_column(ForeignKey("auction.id"), index=True)
    bidder: Mapped[str]
    amount: Mapped[int]
    placed: Mapped[float] = mapped_column(default=time.time)


INDEX = {"path": "/", "hold": None}
PAGE = {"path": "/auctions/{id:int}", "hold": None}
GRIP_EDGE: dict[str, Any] = {
    "grip_url": os.environ.get("GRIP_URL", "http://127.0.0.1:5561"),
    "cdn": os.environ.get("EDGE_CDN", "varnish://127.0.0.1:6081"),
    "hold": "stream",
    "throttle": 0.5,
    "topics": {
        "auction-{id}": {"routes": ["/auctions/{id:int}/events", PAGE], "models": [Auction]},
        "bids-{id}": {
            "routes": ["/auctions/{id:int}/bids/events", PAGE],
            "models": [{"model": Bid, "params": {"id": "auction_id"}}],
        },
        "auctions": {"routes": ["/auctions/events", INDEX], "models": [Auction]},
    },
}
edge = GripEdge(settings=GRIP_EDGE)


async def index(request: Request) -> Response:
    edge.tag("pages")  # one more key: what to purge at the CDN when a template has changed
    return templates.TemplateResponse(request, "auctions.html", await list_auctions())


async def auctions_events(_request: Request) -> Response:
    return event_stream(await list_auctions())


async def auction_page(request: Request) -> Response:
    edge.tag("pages")
    both = await list_bids(request) | await read_auction(request)
    return templates.TemplateResponse(request, "auction.html", both)


async def auction_events(request: Request) -> Response:
    return event_stream(await read_auction(request))


async def bids_events(request: Request) -> Response:
    return event_stream(await list_bids(request))


async def bid(request: Request) -> Response:
    form = await request.form()
    bidder, amount = str(form.get("bidder", "")).strip(), str(form.get("amount", ""))
    if not (0 < len(bidder) <= 30 and len(amount) < 10 and amount.isdecimal()):
        return PlainTextResponse("expected a bidder (at most 30 letters) and a whole amount", 422)
    async with sessions.begin() as session:
        auction = await session.get_one(Auction, request.path_params["id"])
        if int(amount) <= auction.price:
            return PlainTextResponse(f"somebody bid {auction.price:,} already: bid more", 409)
        auction.price, auction.bids = int(amount), auction.bids + 1
        session.add(Bid(auction_id=auction.id, bidder=bidder, amount=auction.price))
    return JSONResponse(auction.as_dict())


async def read_auction(request: Request) -> dict[str, Any]:
    async with sessions() as session:
        return (await session.get_one(Auction, request.path_params["id"])).as_dict()


async def list_bids(request: Request) -> dict[str, Any]:
    query = select(Bid).filter_by(auction_id=request.path_params["id"]).order_by(Bid.id.desc())
    async with sessions() as session:
        latest = [bid.as_dict() for bid in await session.scalars(query.limit(8))]
    return {"latest": latest, "highest": latest[0]["amount"] if latest else 0}


async def list_auctions() -> dict[str, Any]:
    async with sessions() as session:
        lots = [lot.as_dict() for lot in await session.scalars(select(Auction).order_by("id"))]
    return {"auctions": lots, "bids": sum(lot["bids"] for lot in lots)}


def event_stream(data: Mapping[str, Any]) -> Response:
    """Answer one server-sent event: for who connects, and, pushed, for who is connected."""
    text = json.dumps({**data, "rendered": time.time()})
    return Response(f"data: {text}\n\n", media_type="text/event-stream")


@asynccontextmanager
async def lifespan(_app: Starlette) -> AsyncIterator[None]:
    async with sessions.begin() as session:
        await session.run_sync(lambda sync: Base.metadata.create_all(sync.connection()))
        if await session.scalar(select(Auction.id)) is None:
            session.add_all(Auction(title=title, price=price) for title, price in LOTS.items())
    yield
    await engine.dispose()


app = Starlette(
    routes=[
        Route("/", index),
        Route("/auctions/events", auctions_events),
        Route("/auctions/{id:int}", auction_page),
        Route("/auctions/{id:int}/events", auction_events),
        Route("/auctions/{id:int}/bids/events", bids_events),
        Route("/auctions/{id:int}/bids", bid, methods=["POST"]),
    ],
    exception_handlers={
        exc.NoResultFound: lambda _request, _error: PlainTextResponse("no such lot", 404),
        orm.exc.StaleDataError: lambda _request, _error: PlainTextResponse("outbid", 409),
    },
    middleware=[Middleware(GripEdgeMiddleware, edge=edge)],
    lifespan=lifespan,
)
