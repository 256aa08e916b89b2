"""Records in Redis or Valkey, for all processes of all machines.

Clocks of machines are not compared: all go by the server's. Nothing is locked while a step runs:
it reads, and one script writes what it changed if nobody else has changed what it read. All keys
of one store have the same hash tag, so a cluster keeps them in one place.

The server must not evict what is pending: `maxmemory-policy noeviction`, or a volatile one, which
may only drop what is idle.
"""

from __future__ import annotations

import json
import math
import random
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha1
from threading import Lock
from typing import Any, Literal, NamedTuple, TypeVar, cast
from urllib.parse import unquote, urlsplit

from redis import ConnectionPool, Redis
from redis.backoff import NoBackoff
from redis.connection import parse_url
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    MovedError,
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
)
from redis.exceptions import TimeoutError as RedisTimeout
from redis.retry import Retry
from redis.sentinel import MasterNotFoundError, Sentinel

from grip_edge_middleware.errors import Mistake, SettingsError, StoreError
from grip_edge_middleware.stores.codec import Codec
from grip_edge_middleware.stores.records import Common, Record, Records, Snapshot
from grip_edge_middleware.stores.rules import PROCESSES, version_of

T = TypeVar("T")

# A server that hangs costs its caller so long, once.
TIMEOUT_S = 0.5
SENTINEL_PORT = 26_379
# Others may write what was read in between. Then it is done again, for so long.
CONFLICT_TIMEOUT_S = 2.0
LONGEST_PAUSE_S = 0.02
# Whoever was overtaken so often has the others wait: it has more to write than they.
TRIES_OUT_OF_TURN = 3
TURN_MS = 1_000
# What is idle is remembered for so long, and looked for so often.
FORGET_AFTER_S = 86_400.0
FORGET_EVERY_S = 60.0
MAX_FORGOTTEN = 500
# What nobody forgot, since no process writes any more.
EXPIRE_MS = 7 * 86_400_000
# Lua takes some thousands of arguments for one command.
MAX_MEMBERS = 1_000


class _Script:
    def __init__(self, text: str) -> None:
        self.text = text
        self.digest = sha1(text.encode(), usedforsecurity=False).hexdigest()


# What scripts are given and answer is JSON, in one piece: a client takes longer for a thousand
# pieces than the server for all they say.

# A store that is empty, or has lost what this process knows, begins with a number that is higher
# than all, and with a version for all. The time never goes back: by what the server's does, it is
# ahead of it from then on.
_READ = _Script("""
local state, turn, pending = KEYS[1], KEYS[2], KEYS[3]
local asked = cjson.decode(ARGV[1])
local time = redis.call('TIME')
local found = redis.call('HMGET', state, 'sequence', 'last', 'ahead')
local sequence = tonumber(found[1] or '0')
local last, ahead = tonumber(found[2] or '0'), tonumber(found[3] or '0')
if sequence == 0 or sequence < asked.floor then
    sequence = math.max(time[1] * 1000000 + time[2], asked.floor + 1)
    local number = string.format('%.0f', sequence)
    redis.call('HSET', state, 'sequence', number, 'revision', number, 'forgotten', number,
        'written', number, 'first_version', number .. asked.process)
end
local now = time[1] + time[2] / 1000000 + ahead
if now < last then
    ahead, now = ahead + last - now, last
    redis.call('HSET', state, 'ahead', string.format('%.6f', ahead))
end
if asked.takes then
    redis.call('HSET', state, 'last', string.format('%.6f', now))
    sequence = string.format('%.0f', redis.call('HINCRBY', state, 'sequence', 1))
else
    sequence = redis.call('HGET', state, 'written')
end
if asked.token ~= '' then
    redis.call('SET', turn, asked.token, 'NX', 'PX', asked.turn_ms)
end
local records = {}
for index = 4, #KEYS do
    records[index - 3] = redis.call('HMGET', KEYS[index], unpack(asked.fields))
end
return cjson.encode({
    now = string.format('%.6f', now), sequence = sequence, pending = redis.call('ZCARD', pending),
    common = redis.call('HMGET', state, unpack(asked.common)), records = records
})
""")

# What was read must be as it was. Marks are stamped with the transaction's number, or with a new
# one if another was written that began later: who has seen that would take ours for older.
_WRITE = _Script("""
local state, turn = KEYS[1], KEYS[2]
local asked = cjson.decode(ARGV[1])
local number, first = asked.number, #KEYS - #asked.revisions
local holder = redis.call('GET', turn)
if holder and holder ~= asked.token then return '' end
local found = redis.call('HMGET', state, 'revision', 'written')
if found[1] ~= asked.revision then return '' end
for index, revision in ipairs(asked.revisions) do
    if (redis.call('HGET', KEYS[first + index], 'revision') or '') ~= revision then return '' end
end
if tonumber(found[2]) > tonumber(number) then
    number = string.format('%.0f', redis.call('HINCRBY', state, 'sequence', 1))
end
redis.call('HSET', state, 'written', number)
for _, command in ipairs(asked.commands) do
    local name, place, arguments, stamped = unpack(command)
    for _, field in ipairs(stamped) do
        arguments[#arguments + 1] = field
        arguments[#arguments + 1] = number
    end
    redis.call(name, KEYS[place], unpack(arguments))
end
if holder then redis.call('DEL', turn) end
return number
""")

_GATE_FIELDS = ("revision", "mark", "marked_at", "version")
_WORK_FIELDS = ("published", "window_end", "due", "leased_until", "work")
_RECORD_FIELDS = (*_GATE_FIELDS, *_WORK_FIELDS)
_COMMON_FIELDS = ("revision", "first_version", "caught_up", "forgotten", "escalated")
_INDEXES = ("messages", "purges", "pending", "idle")
# Where the write script has its keys. Those of records follow.
_FIXED = ("state", "turn", *_INDEXES)
_PLACES = {name: place for place, name in enumerate(_FIXED, 1)}
_WHAT_TO_DO: Mapping[type[Exception], str] = {
    AuthenticationError: "are the user and the password in its URL right?",
    BusyLoadingError: "it will be there when it has loaded its data",
    MasterNotFoundError: "do the sentinels know a service of this name?",
    MovedError: "name the node of the cluster that has this slot",
    NoPermissionError: "let its user run scripts, and give it the keys that begin with {grip-edge:",
    OutOfMemoryError: "raise its maxmemory",
    ReadOnlyError: "it is a replica: name the primary, or sentinels by redis+sentinel://",
    RedisTimeout: "does it hang, or is a firewall in between?",
}
# What redis-py has no error for, or not in all versions. Who has not said a password, and asks for
# more than a little, is told the former.
_WORDS: Mapping[str, type[Exception]] = {
    "unauthenticated": AuthenticationError,
    "MOVED ": MovedError,
}


class RedisShelf:
    """Records in the server at `url`, beside those of other names.

        RedisShelf("redis://user:password@host:6379/0", codec)
        RedisShelf("rediss://host:6379/0?ssl_ca_certs=/etc/ssl/ours.pem", codec)
        RedisShelf("unix:///run/redis.sock?db=0", codec)
        RedisShelf("redis+sentinel://user:password@one:26379,two:26379/service/0", codec)

    Options of redis-py can be added to each. Those of sentinels themselves are `sentinel_username`
    and `sentinel_password`. `clock` is asked for the time in place of the server. Each process
    looks so often for what may be forgotten.
    """

    def __init__(
        self,
        url: str,
        codec: Codec,
        *,
        name: str = "default",
        clock: Callable[[], float] | None = None,
        forget_every_s: float = FORGET_EVERY_S,
    ) -> None:
        self._address = parse_address(url)
        self._codec = codec
        self._prefix = f"{{grip-edge:{name}}}"
        self._heard = _Heard()
        self._clock = clock or self._heard.now
        self._process = f"{secrets.randbelow(PROCESSES - 10**6):09}"
        self._forget_every_s = forget_every_s
        self._forget_at = time.monotonic() + forget_every_s * random.random()  # noqa: S311
        self._client: Any = self._address.client()

    def now(self) -> float:
        """Return the server's time, as far as its answers told. Asks nobody."""
        return self._clock()

    def write(self, keys: Iterable[str], step: Callable[[Records], T]) -> T:
        """Run a step that changes records, again if others have changed what it read."""
        if time.monotonic() >= self._forget_at:
            self._forget()
        return self._write(keys, step)

    def _write(self, keys: Iterable[str], step: Callable[[_Transaction], T]) -> T:
        token, watched = secrets.token_hex(8), dict.fromkeys(keys)
        for tries in _tries():
            is_in_turn = tries >= TRIES_OUT_OF_TURN
            transaction = self._begin(watched, token if is_in_turn else "")
            try:
                result = step(transaction)
            except _Overtaken:
                pass
            else:
                is_over = not (transaction.is_changed or is_in_turn)
                if is_over or self._commit(transaction, token):
                    return result
            watched.update(dict.fromkeys(transaction.kept))
        raise StoreError(
            f"{self._address.text}: others have written the same topics for {CONFLICT_TIMEOUT_S} s"
        )

    def read(self, keys: Iterable[str]) -> Records:
        """Return what the gate asks of these keys, all as it was at one moment."""
        keys = list(keys)
        found = self._read(keys, _GATE_FIELDS)
        records = {
            key: Record(int(mark or 0), float(marked_at or -math.inf), version or "")
            for key, (revision, mark, marked_at, version) in zip(keys, found.records, strict=True)
            if revision
        }
        return Snapshot(found.sequence, found.common, records)

    def due(self, now: float, limit: int, *, purges: bool) -> list[str]:
        """Return the keys that are due, the longest due first."""
        with self._asking(), self._client.pipeline(transaction=False) as pipeline:
            for key in self._queues(purges=purges):
                pipeline.zrangebyscore(key, "-inf", now, 0, limit, withscores=True)
            found = [entry for queue in pipeline.execute() for entry in queue]
        return [key for key, _ in sorted(found, key=lambda entry: float(entry[1]))[:limit]]

    def next_due(self, *, purges: bool) -> float | None:
        """Return when the next key is due."""
        return min(self._lowest(*self._queues(purges=purges)), default=None)

    def oldest(self) -> int | None:
        """Return the number of the oldest change that is yet to be delivered."""
        return min(map(int, self._lowest(self._key("pending"))), default=None)

    def close(self) -> None:
        """Close what is open. It is opened again when it is asked."""
        self._client.connection_pool.disconnect()

    def after_fork(self) -> None:
        """Leave the connections to the parent."""
        self._heard.after_fork()
        self._client = self._address.client()

    def _key(self, name: str) -> str:
        return f"{self._prefix}:{name}"

    def _queues(self, *, purges: bool) -> list[str]:
        return [self._key("messages"), *([self._key("purges")] if purges else [])]

    def _lowest(self, *keys: str) -> list[float]:
        with self._asking(), self._client.pipeline(transaction=False) as pipeline:
            for key in keys:
                pipeline.zrange(key, 0, 0, withscores=True)
            return [float(score) for queue in pipeline.execute() for _, score in queue]

    # --- a transaction ------------------------------------------------------------------------

    def _begin(self, keys: Iterable[str], token: str) -> _Transaction:
        keys = list(keys)
        found = self._read(keys, _RECORD_FIELDS, takes=True, token=token)
        transaction = _Transaction(self._codec, found, self._demand)
        for key, values in zip(keys, found.records, strict=True):
            transaction.keep(key, values)
        return transaction

    def _demand(self, key: str) -> Sequence[Value]:
        return self._read([key], _RECORD_FIELDS).records[0]

    def _read(
        self, keys: Sequence[str], fields: Sequence[str], *, takes: bool = False, token: str = ""
    ) -> _Found:
        """Read records as they are now; with `takes`, also take a number."""
        at = [self._key("state"), self._key("turn"), self._key("pending")]
        asked = {
            "floor": self._heard.highest,
            "process": self._process,
            "takes": takes,
            "token": token,
            "turn_ms": TURN_MS,
            "common": _COMMON_FIELDS,
            "fields": fields,
        }
        sent = time.monotonic()
        found = json.loads(self._run(_READ, [*at, *map(self._record, keys)], asked))
        sequence = int(found["sequence"])
        self._heard.hear(float(found["now"]), sent, sequence)
        revision, *common = found["common"]
        return _Found(
            sequence, found["pending"], revision, _parse_common(common), found["records"] or []
        )

    def _commit(self, transaction: _Transaction, token: str) -> bool:
        """Write what was changed, unless others have changed what was read."""
        keys = [*map(self._key, _FIXED), *map(self._record, transaction.kept)]
        asked = {
            "token": token,
            "number": str(transaction.sequence),
            "revision": transaction.revision,
            "revisions": [kept.revision for kept in transaction.kept.values()],
            "commands": list(transaction.commands(self.now())),
        }
        number = self._run(_WRITE, keys, asked)
        if number:
            self._heard.see(int(number))
        return bool(number)

    def _record(self, key: str) -> str:
        return self._key(f"record:{key}")

    def _forget(self) -> None:
        """Forget what was idle for long, so that no topic has an older version than it had."""
        self._forget_at = time.monotonic() + self._forget_every_s
        with self._asking():
            old = self._client.zrangebyscore(
                self._key("idle"), "-inf", self.now() - FORGET_AFTER_S, 0, MAX_FORGOTTEN
            )
        if len(old) == MAX_FORGOTTEN:
            self._forget_at = 0.0  # and the rest with the next write
        if old:
            self._write(old, lambda transaction: transaction.forget(old))

    # --- the server ---------------------------------------------------------------------------

    def _run(self, script: _Script, keys: Sequence[str], asked: Mapping[str, object]) -> Any:
        rest = [len(keys), *keys, json.dumps(asked, separators=(",", ":"))]
        with self._asking():
            try:
                return self._client.execute_command("EVALSHA", script.digest, *rest)
            except NoScriptError:  # it was restarted
                return self._client.execute_command("EVAL", script.text, *rest)

    @contextmanager
    def _asking(self) -> Iterator[None]:
        try:
            yield
        # What is no Redis may say anything, and the parser stumbles over it in many ways.
        except (RedisError, OSError, ValueError, TypeError, IndexError) as error:
            # Without its cause, which may repeat the password.
            raise StoreError(self._address.describe(error)) from None


def _tries() -> Iterator[int]:
    """Yield how often it was tried, with pauses, until it takes too long."""
    deadline = time.monotonic() + CONFLICT_TIMEOUT_S
    tries = 0
    while time.monotonic() < deadline:
        yield tries
        tries += 1
        time.sleep(random.uniform(0.0, min(LONGEST_PAUSE_S, 0.001 * 2.0**tries)))  # noqa: S311


# --- records ------------------------------------------------------------------------------------

# A command of the write script: its name, where its key is, the rest, and which fields are given
# the number under which all is written.
Command = tuple[str, int, Sequence[str], Sequence[str]]
Fields = Mapping[str, str]
# Of a field; False if there is none.
Value = str | Literal[False]


class _Found(NamedTuple):
    """What the server answered to a read."""

    sequence: int
    pending: int
    revision: str
    common: Common
    records: Sequence[Sequence[Value]]


class _Overtaken(Exception):  # noqa: N818 - a state
    """Others have changed what the transaction has not read yet, but begun with."""


@dataclass(slots=True)
class _Kept:
    """A record within a transaction, and what the server has of it."""

    record: Record
    revision: str
    fields: Mapping[str, Value]
    scores: Mapping[str, float]
    """Its places in the indexes."""
    is_pending: bool
    """Whether it is counted as pending."""


@dataclass(slots=True)
class _Transaction:
    """Records to change. `demand` reads those that nobody named before."""

    codec: Codec
    found: _Found
    demand: Callable[[str], Sequence[Value]]
    kept: dict[str, _Kept] = field(default_factory=dict)
    _edited: dict[str, _Kept] = field(default_factory=dict)
    _uncounted: dict[str, _Kept] = field(default_factory=dict)
    _more_pending: int = 0
    _forgotten: set[str] = field(default_factory=set)
    _common: Fields = field(init=False)

    def __post_init__(self) -> None:
        self._common = _common_fields(self.common)

    @property
    def sequence(self) -> int:
        return self.found.sequence

    @property
    def revision(self) -> str:
        return self.found.revision

    @property
    def common(self) -> Common:
        return self.found.common

    def get(self, key: str) -> Record | None:
        kept = self._load(key)
        return kept.record if kept.revision or key in self._edited else None

    def edit(self, key: str) -> Record:
        kept = self._edited[key] = self._uncounted[key] = self._load(key)
        return kept.record

    def pending(self) -> int:
        for kept in self._uncounted.values():
            is_pending = kept.record.is_pending
            self._more_pending += is_pending - kept.is_pending
            kept.is_pending = is_pending
        self._uncounted.clear()
        return self.found.pending + self._more_pending

    def forget(self, keys: Iterable[str]) -> None:
        """Forget these, unless there is something to do again."""
        for key in keys:
            known = self.get(key)
            if known is None or known.is_idle:
                record = self.edit(key)
                self._forgotten.add(key)
                self.common.forgotten = max(self.common.forgotten, record.mark)
                self.common.first_version = version_of(self.common, record)

    def keep(self, key: str, found: Sequence[Value]) -> _Kept:
        """Keep what was read of a key."""
        revision, *values = found
        if int(revision or 0) > self.sequence:
            raise _Overtaken
        record = _parse_record(values, self.codec)
        kept = _Kept(
            record,
            revision or "",
            dict(zip(_RECORD_FIELDS[1:], values, strict=True)),
            _scores(record) if revision else {},
            record.is_pending,
        )
        self.kept[key] = kept
        return kept

    def _load(self, key: str) -> _Kept:
        return self.kept.get(key) or self.keep(key, self.demand(key))

    # --- what is written ----------------------------------------------------------------------

    @property
    def is_changed(self) -> bool:
        return bool(self._edited) or _common_fields(self.common) != self._common

    def commands(self, now: float) -> Iterator[Command]:
        """Yield what the write script does."""
        common = _common_fields(self.common)
        if common != self._common:
            yield "HSET", _PLACES["state"], _flat(common), ["revision"]
        for place, (key, kept) in enumerate(self.kept.items(), len(_FIXED) + 1):
            if key in self._forgotten:
                yield "DEL", place, [], []
            elif key in self._edited:
                yield from self._save(place, kept)
        yield from self._index(now)

    def _save(self, place: int, kept: _Kept) -> Iterator[Command]:
        fields = _fields(kept.record, self.codec)
        had = {name: text or _NEW[name] for name, text in kept.fields.items()}
        changed = {name: text for name, text in fields.items() if text != had[name]}
        stamped = ["revision"]
        if kept.record.mark == self.sequence:
            changed.pop("mark", None)
            stamped.append("mark")
        yield "HSET", place, _flat(changed), stamped
        if kept.record.is_idle:
            yield "PEXPIRE", place, [str(EXPIRE_MS)], []
        elif "idle" in kept.scores:
            yield "PERSIST", place, [], []

    def _index(self, now: float) -> Iterator[Command]:
        """Yield what puts the edited records in their places in the indexes."""
        added: dict[str, dict[str, float]] = {name: {} for name in _INDEXES}
        removed: dict[str, list[str]] = {name: [] for name in _INDEXES}
        for key, kept in self._edited.items():
            scores = {} if key in self._forgotten else _scores(kept.record, now)
            for name, score in scores.items():
                if kept.scores.get(name) != score:
                    added[name][key] = score
            for name in kept.scores.keys() - scores.keys():
                removed[name].append(key)
        removed["idle"] += self._forgotten  # also those that the server has not any more
        for name, place in ((name, _PLACES[name]) for name in _INDEXES):
            members = [text for key, score in added[name].items() for text in (repr(score), key)]
            yield from _chunks("ZADD", place, members)
            yield from _chunks("ZREM", place, removed[name])


def _scores(record: Record, now: float = math.nan) -> dict[str, float]:
    """Return the places of a record in the indexes. `now` is when it was changed."""
    scores: dict[str, float] = {}
    if record.is_idle:
        scores["idle"] = now
    elif record.next_due < math.inf:
        scores["purges" if record.is_only_purged else "messages"] = record.next_due
    if (since := record.since) is not None:
        scores["pending"] = since
    return scores


def _chunks(command: str, place: int, members: Sequence[str]) -> Iterator[Command]:
    for first in range(0, len(members), MAX_MEMBERS):
        yield command, place, members[first : first + MAX_MEMBERS], []


def _flat(fields: Fields) -> list[str]:
    return [text for entry in fields.items() for text in entry]


def _fields(record: Record, codec: Codec) -> dict[str, str]:
    return {
        "mark": str(record.mark),
        "marked_at": repr(record.marked_at),
        "version": record.version,
        "published": record.published,
        "window_end": repr(record.window_end),
        "due": repr(record.due),
        "leased_until": repr(record.leased_until),
        "work": codec.encode(record),
    }


def _parse_record(values: Sequence[Value], codec: Codec) -> Record:
    mark, marked_at, version, published, window_end, due, leased_until, work = values
    record = Record(
        int(mark or 0),
        float(marked_at or -math.inf),
        version or "",
        published or "",
        float(window_end or -math.inf),
        due=float(due or math.inf),
        leased_until=float(leased_until or math.inf),
    )
    codec.decode(work or "", record)
    return record


def _common_fields(common: Common) -> dict[str, str]:
    return {
        "first_version": common.first_version,
        "caught_up": common.caught_up,
        "forgotten": str(common.forgotten),
        "escalated": " ".join(sorted(common.escalated)),
    }


def _parse_common(values: Sequence[Value]) -> Common:
    first_version, caught_up, forgotten, escalated = values
    return Common(
        first_version or "", caught_up or "", int(forgotten or 0), set((escalated or "").split())
    )


_NEW = _fields(Record(), Codec((), throttle_s=0.0))


# --- time, and numbers --------------------------------------------------------------------------


class _Heard:
    """What this process knows of the server: its time, and its highest number.

    The server's time is told by this process's monotonic clock. Each answer was made between
    its question and its arrival: what is known is corrected only if that cannot be.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.highest = 0
        self._clock = clock
        self._ahead = time.time() - clock()  # nothing better is known before the first
        self._lock = Lock()

    def after_fork(self) -> None:
        self._lock = Lock()

    def now(self) -> float:
        return self._clock() + self._ahead

    def hear(self, server: float, sent: float, sequence: int) -> None:
        """Note an answer that has just arrived, to what was sent then."""
        received = self._clock()
        with self._lock:
            self._ahead = min(max(self._ahead, server - received), server - sent)
            self.highest = max(self.highest, sequence)

    def see(self, sequence: int) -> None:
        """Note a number."""
        with self._lock:
            self.highest = max(self.highest, sequence)


# --- where it is --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Address:
    """Where the server is, and how it is asked. `text` names it without the password."""

    text: str
    options: Mapping[str, Any] = field(repr=False)
    sentinels: tuple[tuple[str, int], ...] = ()
    service: str = ""
    sentinel_options: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def client(self) -> Any:
        """Return a client with connections of its own, none of which is open yet."""
        if not self.service:
            return Redis(connection_pool=ConnectionPool(**self.options))
        sentinel = cast("Any", Sentinel)(
            self.sentinels, sentinel_kwargs=dict(self.sentinel_options)
        )
        return sentinel.master_for(self.service, **self.options)

    def describe(self, error: Exception) -> str:
        """Return what went wrong, and what to do."""
        said = " ".join(str(error).split())
        for secret in filter(None, self._secrets()):
            said = said.replace(secret, "***")
        said = said[:200] or type(error).__name__
        kinds = [type(error), *(kind for words, kind in _WORDS.items() if words in said)]
        hints = (
            hint
            for known, hint in _WHAT_TO_DO.items()
            if any(issubclass(kind, known) for kind in kinds)
        )
        return "; ".join([f"{self.text}: {said}", *hints])

    def _secrets(self) -> Iterator[str]:
        for options in (self.options, self.sentinel_options):
            for name, value in options.items():
                if "password" in name and isinstance(value, str):
                    yield value


def parse_address(url: str) -> _Address:
    """Return where a URL leads. SettingsError says what is wrong with it, without the password."""
    try:
        return _parse_sentinels(url) if "+sentinel://" in url else _parse_server(url)
    except ValueError as error:
        # Other texts repeat what they take for the port, which may be a piece of the password.
        known = str(error) if str(error).startswith(("Invalid value for", "expected")) else ""
        mistake = Mistake(
            "store",
            f"this URL of Redis cannot be read{known and f': {known}'}",
            "as in redis://user:password@host:6379/0, with %2F for a / in the password",
        )
        raise SettingsError([mistake]) from None


def _parse_server(url: str) -> _Address:
    options = _options(url)
    if "path" in options:
        where = str(options["path"])
    else:
        where = f"{options.get('host', 'localhost')}:{options.get('port', 6379)}"
    return _Address(f"redis at {where}", options)


def _parse_sentinels(url: str) -> _Address:
    """Read `redis+sentinel://user:password@host:port,host:port/service/db?options`."""
    parts = urlsplit(url)
    user, at, hosts = parts.netloc.rpartition("@")
    service, _, db = parts.path.strip("/").partition("/")
    sentinels = tuple(_parse_host(host) for host in hosts.split(",") if host)
    if not sentinels or not service:
        raise ValueError("expected redis+sentinel://host:port,host:port/service/db")
    scheme = parts.scheme.removesuffix("+sentinel")
    options = _options(f"{scheme}://{user}{at}localhost/{db}?{parts.query}")
    options.pop("host")
    if options.pop("connection_class", None) is not None:
        options["ssl"] = True
    own = {name: options.pop(f"sentinel_{name}", None) for name in ("username", "password")}
    shared = {name: value for name, value in options.items() if name not in ("db", *own)}
    return _Address(
        f"redis {service} by {hosts}", options, sentinels, unquote(service), {**shared, **own}
    )


def _parse_host(text: str) -> tuple[str, int]:
    parts = urlsplit(f"//{text}")
    return unquote(parts.hostname or ""), parts.port or SENTINEL_PORT


def _options(url: str) -> dict[str, Any]:
    """Return what redis-py is told: what the URL says, and what must be so."""
    return {
        "socket_timeout": TIMEOUT_S,
        "socket_connect_timeout": TIMEOUT_S,
        **cast("Any", parse_url)(url),
        "decode_responses": True,
        "encoding": "utf-8",
        "protocol": 2,
        # A caller waits once. Whoever asks again does so later.
        "retry": Retry(NoBackoff(), 0),
    }
