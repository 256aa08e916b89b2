"""A live auction: Starlette and async SQLAlchemy (aiosqlite) behind a cache and a GRIP proxy.

    browser ── Pushpin (holds the connections) ── Varnish (caches) ── this app

A lot's page opens three streams, each of a topic of its own: the lot's price, its latest bids, and
the summary of all lots. A bid inserts one row and updates another in one commit; every topic that
shows either is purged and pushed, once. With the edge running, start the app by
`uvicorn app:app` in this folder (or `uvicorn examples.starlette_app.app:app` above it). Then:

* Open two lots in two windows through Pushpin and bid in one. Its price and bids move in that
  window, the summary in both.
* Bid less than the price (409), or the same amount twice at once (one of them wins).
* `curl -N localhost:7999/auctions/1/events` and, beside it,
  `curl -d bidder=ann -d amount=5000 localhost:7999/auctions/1/bids`.
* Stop the app: pages still open and streams stay up. Start it again and bid.

Environment: GRIP_URL (Pushpin's control port), EDGE_CDN (the cache to purge), DATABASE_URL.
"""

import json
import os
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from sqlalchemy import ForeignKey, event, select
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.orm.exc import StaleDataError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.templating import Jinja2Templates

from grip_edge_middleware import GripEdge, GripEdgeMiddleware

DATABASE = f"sqlite+aiosqlite:///{Path(tempfile.gettempdir(), 'grip-edge-auctions.db')}"
LOTS = {
    "Ship's chronometer, 1923": 1200,
    "Walnut writing desk": 640,
    "Folding camera": 180,
    "Sea chart, Lisbon": 95,
}

engine = create_async_engine(os.environ.get("DATABASE_URL", DATABASE))
sessions = async_sessionmaker(engine, expire_on_commit=False)
templates = Jinja2Templates(Path(__file__).parent / "templates")
templates.env.filters["clock"] = lambda unix: time.strftime("%H:%M:%S", time.gmtime(unix))


class Base(DeclarativeBase):
    pass


class Auction(Base):
    __tablename__ = "auction"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    price: Mapped[int]
    bids: Mapped[int] = mapped_column(default=0)
    bidder: Mapped[str] = mapped_column(default="")
    version: Mapped[int] = mapped_column()
    # Of two bids that read the same price, the second to be written fails: see place_bid.
    __mapper_args__ = {"version_id_col": version}  # noqa: RUF012


class Bid(Base):
    __tablename__ = "bid"
    id: Mapped[int] = mapped_column(primary_key=True)
    auction_id: Mapped[int] = mapped_column(ForeignKey("auction.id"), index=True)
    bidder: Mapped[str]
    amount: Mapped[int]
    placed: Mapped[float] = mapped_column(default=time.time)


# A lot's page shows its price and its bids: both topics name it, and it has the keys of both.
PAGE = {"path": "/auctions/{id:int}", "hold": None}
GRIP_EDGE: dict[str, Any] = {
    "grip_url": os.environ.get("GRIP_URL", "http://127.0.0.1:5561"),
    "cdn": os.environ.get("EDGE_CDN", "varnish://127.0.0.1:6081"),
    "topics": {
        "auction-{id}": {
            "routes": ["/auctions/{id:int}/events", PAGE],
            "models": [Auction],
            "hold": "stream",
            "throttle": 0.5,
        },
        "bids-{id}": {
            "routes": ["/auctions/{id:int}/bids/events", PAGE],
            "models": [{"model": Bid, "params": {"id": "auction_id"}}],
            "hold": "stream",
            "throttle": 0.5,
        },
        "auctions": {
            "routes": ["/auctions/events", {"path": "/", "hold": None}],
            "models": [Auction],
            "hold": "stream",
            "throttle": 1.0,
        },
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
    auction_id: int = request.path_params["id"]
    both = {**await list_bids(auction_id), **await read_auction(auction_id)}
    return templates.TemplateResponse(request, "auction.html", both)


async def auction_events(request: Request) -> Response:
    return event_stream(await read_auction(request.path_params["id"]))


async def bids_events(request: Request) -> Response:
    return event_stream(await list_bids(request.path_params["id"]))


async def bid(request: Request) -> Response:
    auction_id: int = request.path_params["id"]
    await place_bid(auction_id, *parse_bid(await request.body()))
    if "text/html" in request.headers.get("accept", ""):  # the form of a page without JavaScript
        return RedirectResponse(f"/auctions/{auction_id}", 303)
    return JSONResponse(await read_auction(auction_id))


def parse_bid(body: bytes) -> tuple[str, int]:
    form = dict(parse_qsl(body.decode(errors="replace")))
    bidder, amount = form.get("bidder", "").strip(), form.get("amount", "")
    if not 1 <= len(bidder) <= 30:
        raise HTTPException(422, "bidder: expected a name of 1 to 30 characters")
    if not (amount.isascii() and amount.isdigit() and len(amount) <= 9):
        raise HTTPException(422, "amount: expected a whole number of at most 9 digits")
    return bidder, int(amount)


async def place_bid(auction_id: int, bidder: str, amount: int) -> None:
    async with sessions() as session:
        auction = await session.get(Auction, auction_id)
        if auction is None:
            raise HTTPException(404)
        if amount <= auction.price:
            raise HTTPException(409, f"somebody bid {auction.price:,} already: bid more")
        auction.price, auction.bidder, auction.bids = amount, bidder, auction.bids + 1
        session.add(Bid(auction_id=auction_id, bidder=bidder, amount=amount))
        try:
            await session.commit()
        except StaleDataError:  # another bid was faster: look at the price again
            await session.rollback()
            await place_bid(auction_id, bidder, amount)


async def read_auction(auction_id: int) -> dict[str, Any]:
    async with sessions() as session:
        auction = await session.get(Auction, auction_id)
    if auction is None:
        raise HTTPException(404)
    return {**describe(auction), "rendered": time.time()}


async def list_bids(auction_id: int) -> dict[str, Any]:
    latest = select(Bid).where(Bid.auction_id == auction_id).order_by(Bid.id.desc()).limit(8)
    async with sessions() as session:
        if await session.get(Auction, auction_id) is None:
            raise HTTPException(404)
        bids = (await session.scalars(latest)).all()
    rows = [{"id": b.id, "bidder": b.bidder, "amount": b.amount, "placed": b.placed} for b in bids]
    highest = rows[0]["amount"] if rows else 0
    return {"highest": highest, "latest": rows, "rendered": time.time()}


async def list_auctions() -> dict[str, Any]:
    async with sessions() as session:
        auctions = (await session.scalars(select(Auction).order_by(Auction.id))).all()
    return {
        "total": sum(auction.price for auction in auctions),
        "bids": sum(auction.bids for auction in auctions),
        "auctions": [describe(auction) for auction in auctions],
        "rendered": time.time(),
    }


def describe(auction: Auction) -> dict[str, Any]:
    shown = {key: getattr(auction, key) for key in ("id", "title", "price", "bids", "bidder")}
    return {**shown, "url": f"/auctions/{auction.id}"}


def event_stream(data: Mapping[str, Any]) -> Response:
    """Answer one server-sent event: for who connects, and, pushed, for who is connected."""
    return Response(f"data: {json.dumps(data)}\n\n", media_type="text/event-stream")


@event.listens_for(engine.sync_engine, "connect")
def share_sqlite(connection: Any, _record: Any) -> None:
    """Let many read while one writes, and let writers wait for each other."""
    for pragma in ("busy_timeout=15000", "journal_mode=WAL", "synchronous=NORMAL"):
        connection.execute(f"PRAGMA {pragma}")


@asynccontextmanager
async def lifespan(_app: Starlette) -> AsyncIterator[None]:
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    async with sessions.begin() as session:
        if await session.scalar(select(Auction.id).limit(1)) is None:
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
    middleware=[Middleware(GripEdgeMiddleware, edge=edge)],
    lifespan=lifespan,
)
