"""The control API: what publishers and purgers send. Pushpin's, and Fastly's for both.

POST /publish/                     items for the GRIP proxy
POST /recover/                     have all clients asked for what they missed
POST /service/ID/publish/          as Fastly Fanout has it
POST /service/ID/purge             keys in the body, or in `Surrogate-Key`
POST /service/ID/purge/KEY
POST /service/ID/purge_all
"""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine, Iterable
from hmac import compare_digest
from typing import Any

import jwt
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from grip_edge_middleware.devedge.cache import Cache
from grip_edge_middleware.devedge.instruct import PublishError, parse_items
from grip_edge_middleware.devedge.proxy import GripProxy
from grip_edge_middleware.surrogate import parse_keys
from grip_edge_middleware.types import ASGIApp

# https://docs.fastly.com/api/purge
MAX_KEYS = 256

Answering = Callable[[Request], Coroutine[Any, Any, Response]]


def control(
    proxy: GripProxy,
    cache: Cache | None = None,
    *,
    key: str | None = None,
    routes: Iterable[Route] = (),
) -> ASGIApp:
    """Return the control API of a GRIP proxy, and of a cache, with further `routes`.

    With `key`, requests need it: as `Fastly-Key`, as a bearer token, or as what signed one.
    """

    async def publish(request: Request) -> Response:
        try:
            items = parse_items(await request.body())
        except PublishError as error:
            return PlainTextResponse(f"{error}\n", 400)
        proxy.publish(items)
        return PlainTextResponse("Published\n")

    async def recover(request: Request) -> Response:
        proxy.recover()
        return PlainTextResponse("Updated\n")

    def guarded(answering: Answering) -> Answering:
        async def answer(request: Request) -> Response:
            if key is not None and not _is_authorized(request, key):
                return JSONResponse({"msg": "Provided credentials are missing or invalid"}, 401)
            return await answering(request)

        return answer

    served = {
        "/publish": publish,
        "/publish/": publish,
        "/recover": recover,
        "/recover/": recover,
        "/service/{id}/publish/": publish,
    }
    if cache is not None:
        served |= _purging(cache)
    posts = [Route(path, guarded(each), methods=["POST"]) for path, each in served.items()]
    return Starlette(routes=[*posts, *routes])


def _purging(cache: Cache) -> dict[str, Answering]:
    def purged(keys: list[str], request: Request) -> Response:
        cache.purge(keys, hard="fastly-soft-purge" not in request.headers)
        return JSONResponse({key: f"devedge-{number}" for number, key in enumerate(keys)})

    async def purge(request: Request) -> Response:
        keys = _keys_of(request, await request.body())
        if keys is None:
            return _failed("Surrogate keys are missing")
        if len(keys) > MAX_KEYS:
            return _failed(
                f"Batch surrogate key request only supports up to {MAX_KEYS} surrogate keys"
            )
        return purged(keys, request)

    async def purge_key(request: Request) -> Response:
        cache.purge([request.path_params["key"]], hard="fastly-soft-purge" not in request.headers)
        return JSONResponse({"status": "ok", "id": "devedge-0"})

    async def purge_all(request: Request) -> Response:
        cache.purge_all()
        return JSONResponse({"status": "ok"})

    return {
        "/service/{id}/purge": purge,
        "/service/{id}/purge/{key}": purge_key,
        "/service/{id}/purge_all": purge_all,
    }


def _keys_of(request: Request, body: bytes) -> list[str] | None:
    if named := request.headers.getlist("surrogate-key"):
        return parse_keys(named)
    try:
        keys = json.loads(body)["surrogate_keys"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return [str(key) for key in keys] if isinstance(keys, list) else None


def _failed(reason: str) -> Response:
    return JSONResponse({"status": "fail", "reason": reason}, 400)


def _is_authorized(request: Request, key: str) -> bool:
    bearer = request.headers.get("authorization", "").removeprefix("Bearer ")
    for token in (bearer, request.headers.get("fastly-key", "")):
        if compare_digest(token.encode(), key.encode()):
            return True
    try:
        jwt.decode(bearer, key, ["HS256"])
    except jwt.PyJWTError:
        return False
    return True
