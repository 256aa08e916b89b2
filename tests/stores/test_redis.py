"""What Redis does beyond the contract: what goes wrong, restarts, time, and how it is reached."""

from __future__ import annotations

import datetime
import ipaddress
import math
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from launch import free_ports
from redis.crc import key_slot

from grip_edge_middleware.errors import SettingsError, StoreError
from grip_edge_middleware.stores.records import Records
from grip_edge_middleware.stores.redis import (
    FORGET_AFTER_S,
    TRIES_OUT_OF_TURN,
    RedisShelf,
    _Heard,
    parse_address,
)
from grip_edge_middleware.stores.shared import SharedStore
from tests.recording import DEADLINE_S
from tests.stores import redis_server
from tests.stores.redis_server import RedisServer
from tests.stores.test_contract import CODEC, Clock, counter, names
from tests.stores.test_shelf import NOW, done, mark, record_of, waits

PASSWORD = "hunter2/ü%"
QUOTED = "hunter2%2F%C3%BC%25"
STATE, TURN = "{grip-edge:default}:state", "{grip-edge:default}:turn"

OpenShelf = Callable[..., RedisShelf]


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """A server of its own for a test."""
    with redis_server.running() as server:
        yield server


@pytest.fixture
def open_shelf(server: RedisServer) -> Iterator[OpenShelf]:
    """Opens the same shelf, as another process does."""
    with ExitStack() as stack:

        def open_it(**options: Any) -> RedisShelf:
            return stack.enter_context(closing(RedisShelf(server.url, CODEC, **options)))

        yield open_it


@pytest.fixture
def shelf(open_shelf: OpenShelf) -> RedisShelf:
    return open_shelf()


def refused(url: str) -> str:
    with closing(RedisShelf(url, CODEC)) as shelf, pytest.raises(StoreError) as caught:
        mark(shelf, "k")
    assert caught.value.__cause__ is None
    return str(caught.value)


# --- what goes wrong --------------------------------------------------------------------------


def test_a_server_that_is_not_there_is_said() -> None:
    port = next(free_ports())

    assert refused(f"redis://:{QUOTED}@127.0.0.1:{port}/0") == (
        f"store: redis at 127.0.0.1:{port}: Error 111 connecting to 127.0.0.1:{port}. "
        "Connection refused."
    )


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        ("", "are the user and the password in its URL right?"),
        (":hunter3@", "are the user and the password in its URL right?"),
        ("nobody:hunter3@", "are the user and the password in its URL right?"),
    ],
)
def test_a_wrong_password_is_said_and_not_shown(user: str, expected: str) -> None:
    with redis_server.running("--requirepass", PASSWORD) as server:
        text = refused(server.url.replace("//", f"//{user}"))
        right = RedisShelf(server.url.replace("//", f"//:{QUOTED}@"), CODEC)

        assert expected in text
        assert "hunter" not in text
        assert mark(right, "k")
        right.close()


def test_a_replica_is_said() -> None:
    with redis_server.running("--replicaof", "127.0.0.1 1") as server:
        assert "it is a replica: name the primary" in refused(server.url)


def test_a_server_without_memory_is_said(server: RedisServer, shelf: RedisShelf) -> None:
    before = mark(shelf, "k")
    with closing(server.client()) as client:
        client.config_set("maxmemory", 1)
        text = refused(server.url)
        client.config_set("maxmemory", 0)

    assert text.endswith("; raise its maxmemory")
    assert mark(shelf, "k") > before


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (b"-LOADING Redis is loading the dataset in memory\r\n", "it will be there when"),
        (b"-MOVED 3999 127.0.0.1:6381\r\n", "name the node of the cluster"),
        (b"-NOAUTH Authentication required.\r\n", "are the user and the password"),
        (b"-NOPERM this user has no permissions\r\n", "let its user run scripts"),
        (b"-ERR unknown command 'AUTH', with args: '" + PASSWORD.encode() + b"'\r\n", "'***'"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "Protocol Error"),
        (b"\x00\xff\xfe\r\n", "Protocol Error"),
        (b":hello\r\n", "hello"),
        (b"*2\r\n+OK\r\n", "store: redis at"),
        (b"", "Connection closed by server"),
    ],
)
def test_an_answer_that_is_no_use_is_said(answer: bytes, expected: str) -> None:
    with answering(answer) as port:
        text = refused(f"redis://:{QUOTED}@127.0.0.1:{port}/0")

    assert expected in text
    assert "hunter" not in text


@contextmanager
def answering(answer: bytes) -> Iterator[int]:
    """Say the same to whatever is asked."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer_all() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(65_536)
                    connection.sendall(answer)
                    if answer:
                        connection.recv(65_536)

        thread = threading.Thread(target=answer_all)
        thread.start()
        yield listening.getsockname()[1]
        listening.shutdown(socket.SHUT_RDWR)
    thread.join()


@pytest.mark.parametrize(
    "url",
    [
        "redis://:hunter2/more@host:6379/0",
        "redis://:hunter2@host:port/0",
        "redis://:hunter2@host:6379/0?socket_timeout=soon",
        "redis+sentinel://:hunter2@host:26379",
        "redis+sentinel://:hunter2@host:port/service",
    ],
)
def test_a_url_that_cannot_be_read_is_said_and_not_shown(url: str) -> None:
    with pytest.raises(SettingsError, match="this URL of Redis cannot be read") as caught:
        RedisShelf(url, CODEC)

    assert "hunter" not in str(caught.value)


def test_a_password_is_in_no_repr() -> None:
    url = "redis+sentinel://:hunter2@host:1/s/0?sentinel_password=hunter3"

    assert "hunter" not in repr(parse_address(url))


# --- it hangs, or is restarted ----------------------------------------------------------------


def test_what_is_submitted_while_it_hangs_arrives(server: RedisServer, shelf: RedisShelf) -> None:
    store = SharedStore(shelf)
    store.sequence()
    with server.hanging():
        store.add([counter("blue", "1")], 0.0)
        with pytest.raises(StoreError, match="does it hang"):
            store.take_in()
        with pytest.raises(StoreError, match="it did not answer when it was asked last"):
            store.sequence()
    store.take_in()

    assert names(store.claim(math.inf, limit=9)) == ["counter-blue"]


def test_what_is_submitted_while_it_is_down_arrives_on_an_empty_one(
    server: RedisServer, shelf: RedisShelf
) -> None:
    store = SharedStore(shelf)
    store.add([counter("red")], 0.0)
    store.take_in()
    [red] = store.claim(math.inf, limit=1)
    begun = store.sequence()
    server.stop()
    store.add([counter("blue")], 0.0)
    with pytest.raises(StoreError):
        store.take_in()
    store.release([red], 0.0)
    server.start()
    store.take_in()

    [blue] = store.claim(math.inf, limit=9)
    assert blue.topic.name == "counter-blue"
    assert store.has_changed(["counter-green"], begun)
    assert not store.has_changed(["counter-green"], store.sequence())


def test_numbers_and_versions_go_on_when_all_is_lost(
    server: RedisServer, open_shelf: OpenShelf
) -> None:
    shelf = open_shelf()
    mark(shelf, "k")
    with closing(server.client()) as client:
        client.hincrby(STATE, "sequence", 10**15)  # as if the clock had been years ahead
    number, begun = mark(shelf, "k"), shelf.read(())
    server.restart_empty()
    with closing(server.client()) as client:
        client.ping()
    mark(open_shelf(), "k")  # who knows nothing of it begins with a lower one

    after = shelf.read(["k"])
    assert after.sequence > number
    assert after.common.forgotten > number
    assert int(after.common.first_version) > int(begun.common.first_version)
    assert mark(shelf, "k") > after.sequence


def test_scripts_that_it_has_lost_are_sent_again(server: RedisServer, shelf: RedisShelf) -> None:
    mark(shelf, "k")
    with closing(server.client()) as client:
        client.script_flush()

    assert mark(shelf, "k")


def test_a_child_leaves_the_connections_to_its_parent(shelf: RedisShelf) -> None:
    mark(shelf, "k")
    child = os.fork()
    if child == 0:
        shelf.after_fork()
        os._exit(0 if mark(shelf, "k") else 1)

    assert os.waitpid(child, 0)[1] == 0
    assert mark(shelf, "k")


# --- others write in between ------------------------------------------------------------------


def test_a_change_that_began_first_and_was_written_last_is_seen(open_shelf: OpenShelf) -> None:
    shelf, other = open_shelf(), open_shelf()
    seen = []

    def change(records: Records) -> None:
        records.edit("slow").mark = records.sequence
        mark(other, "quick")
        seen.append(other.read(()).sequence)

    shelf.write(["slow"], change)

    record = shelf.read(["slow"]).get("slow")
    assert record is not None
    assert [record.mark > number for number in seen] == [True]


def test_a_step_that_asks_for_what_was_written_since_it_began_is_run_again(
    open_shelf: OpenShelf,
) -> None:
    shelf, other = open_shelf(), open_shelf()
    numbers: list[int] = []

    def change(records: Records) -> None:
        if not numbers:
            mark(other, "k")
        numbers.append(records.sequence)
        record = records.edit("k")
        assert records.sequence > record.mark

    shelf.write((), change)

    assert len(numbers) == 2


def test_a_step_is_run_again_if_what_is_known_of_all_has_changed(open_shelf: OpenShelf) -> None:
    shelf, other = open_shelf(), open_shelf()

    def escalate(records: Records, key: str) -> None:
        records.common.escalated.add(key)

    def change(records: Records) -> None:
        if not other.read(()).common.escalated:
            other.write((), lambda others: escalate(others, "a-%all"))
        escalate(records, "b-%all")

    shelf.write((), change)

    assert shelf.read(()).common.escalated == {"a-%all", "b-%all"}


def test_who_is_overtaken_again_and_again_has_the_others_wait(
    server: RedisServer, open_shelf: OpenShelf
) -> None:
    shelf, other = open_shelf(), open_shelf()
    is_refused = threading.Event()
    tries, others_tries = 0, 0

    def wait(records: Records) -> None:
        nonlocal others_tries
        others_tries += 1
        records.edit("k").published = "2"
        if others_tries == 2:
            is_refused.set()

    waiting = threading.Thread(target=other.write, args=(["k"], wait))

    with closing(server.client()) as client:

        def change(records: Records) -> None:
            nonlocal tries
            tries += 1
            records.edit("k").version = "1"
            if not client.exists(TURN):
                mark(other, "k")
                return
            waiting.start()
            assert is_refused.wait(DEADLINE_S)

        shelf.write(["k"], change)
        waiting.join()

        assert tries == TRIES_OUT_OF_TURN + 1
        assert not client.exists(TURN)
    record = record_of(shelf, "k")
    assert record is not None
    assert (record.version, record.published) == ("1", "2")


def test_who_has_nothing_to_write_after_all_gives_way(
    server: RedisServer, open_shelf: OpenShelf
) -> None:
    shelf, other = open_shelf(), open_shelf()
    tries = 0

    def change(records: Records) -> None:
        nonlocal tries
        tries += 1
        if tries <= TRIES_OUT_OF_TURN:
            records.edit("k")
            mark(other, "k")

    shelf.write(["k"], change)

    with closing(server.client()) as client:
        assert (tries, client.exists(TURN)) == (TRIES_OUT_OF_TURN + 1, 0)


def test_a_step_that_is_always_overtaken_is_said(open_shelf: OpenShelf) -> None:
    shelf = open_shelf()
    others: Iterator[RedisShelf] = iter(open_shelf, None)

    def change(records: Records) -> None:
        records.edit("k")
        with closing(next(others)) as other, closing(other._client) as client:
            client.delete(TURN)
            mark(other, "k")

    with pytest.raises(StoreError, match="others have written the same topics"):
        shelf.write(["k"], change)


# --- what is forgotten ------------------------------------------------------------------------


def test_what_was_idle_for_a_day_is_forgotten(server: RedisServer, open_shelf: OpenShelf) -> None:
    clock = Clock()
    clock.now = NOW
    shelf = open_shelf(clock=clock, forget_every_s=0.0)
    number = mark(shelf, "old")
    waits(shelf, "waiting", NOW)
    first = int(shelf.read(()).common.first_version)

    def give_version(records: Records) -> None:
        records.edit("old").version = str(first + 7)

    shelf.write(["old"], give_version)
    with closing(server.client()) as client:
        # What has got something to do since it was looked for, and what the server has dropped.
        client.zadd("{grip-edge:default}:idle", {"waiting": NOW, "dropped": NOW})
    clock.now += FORGET_AFTER_S + 1
    mark(shelf, "new")

    common = shelf.read(()).common
    assert record_of(shelf, "old") is None
    assert record_of(shelf, "waiting") is not None
    assert common.forgotten == number
    assert common.first_version == str(first + 7)
    with closing(server.client()) as client:
        assert not {"old", "dropped"} & {*client.zrange("{grip-edge:default}:idle", 0, -1)}


def test_only_what_is_idle_expires(server: RedisServer, shelf: RedisShelf) -> None:
    key = "{grip-edge:default}:record:k"
    with closing(server.client()) as client:
        mark(shelf, "k")
        assert client.pttl(key) > 0
        waits(shelf, "k", NOW)
        assert client.pttl(key) == -1
        done(shelf, "k")

        assert client.pttl(key) > 0


# --- time -------------------------------------------------------------------------------------


def test_time_is_the_servers_and_asks_nobody(server: RedisServer, shelf: RedisShelf) -> None:
    shelf.read(())
    server.stop()
    first = shelf.now()

    assert shelf.now() >= first > NOW


def test_time_does_not_go_back_when_the_servers_does(
    server: RedisServer, shelf: RedisShelf
) -> None:
    mark(shelf, "k")
    ahead = shelf.now() + 3_600.0
    with closing(server.client()) as client:
        client.hset(STATE, "last", str(ahead))
    mark(shelf, "k")

    assert shelf.now() >= ahead
    mark(shelf, "k")
    assert shelf.now() < ahead + 1_800.0


def test_time_is_corrected_only_by_what_an_answer_says_for_sure() -> None:
    clock = Clock()
    heard = _Heard(clock)
    clock.now = 10.0
    heard.hear(110.0, sent=10.0, sequence=1)
    assert heard.now() == 110.0
    heard.hear(110.5, sent=9.0, sequence=1)  # made between 9 and 10, so now it is 110.5 to 111.5
    assert heard.now() == 110.5
    heard.hear(110.0, sent=9.0, sequence=1)
    assert heard.now() == 110.5
    heard.hear(50.0, sent=9.5, sequence=1)

    assert heard.now() == 50.5


# --- how it is reached ------------------------------------------------------------------------


def test_names_and_databases_do_not_mix(server: RedisServer) -> None:
    urls = [(server.url, "one"), (server.url, "two"), (server.url[:-1] + "1", "one")]
    with ExitStack() as stack:
        shelves = [
            stack.enter_context(closing(RedisShelf(url, CODEC, name=name))) for url, name in urls
        ]
        for number, shelf in enumerate(shelves):
            waits(shelf, f"k{number}", NOW)

        assert [shelf.due(math.inf, 9, purges=True) for shelf in shelves] == [
            ["k0"],
            ["k1"],
            ["k2"],
        ]


def test_all_keys_are_in_one_slot_of_a_cluster(server: RedisServer, shelf: RedisShelf) -> None:
    use(shelf)
    with closing(server.client()) as client:
        keys = list(client.scan_iter())

    assert len(keys) > 5
    assert len({key_slot(key.encode()) for key in keys}) == 1


def test_a_cluster_takes_what_the_scripts_ask_for() -> None:
    with redis_server.running("--cluster-enabled", "yes") as server:
        with closing(server.client()) as client:
            client.cluster("addslotsrange", 0, 16_383)
            deadline = time.monotonic() + DEADLINE_S
            while client.cluster("info")["cluster_state"] != "ok":
                assert time.monotonic() < deadline
                time.sleep(0.01)
        with closing(RedisShelf(server.url, CODEC)) as shelf:
            use(shelf)

            assert mark(shelf, "k")


def use(shelf: RedisShelf) -> None:
    """Have something of each kind."""
    store = SharedStore(shelf)
    store.add([counter("a{b}c"), counter("{}")], 0.0)
    store.take_in()
    store.release(store.claim(math.inf, limit=1), 0.0)


def test_a_unix_socket_will_do(server: RedisServer) -> None:
    with closing(RedisShelf(f"unix://{server.socket}?db=3", CODEC)) as shelf:
        assert mark(shelf, "k")


def test_tls_is_checked(tmp_path: Path) -> None:
    certificate, key = self_made(tmp_path)
    port = next(free_ports())
    options = {
        "tls-port": str(port),
        "tls-cert-file": str(certificate),
        "tls-key-file": str(key),
        "tls-auth-clients": "no",
    }
    arguments = [text for name, value in options.items() for text in (f"--{name}", value)]
    with redis_server.running(*arguments):
        url = f"rediss://127.0.0.1:{port}/0"
        with closing(RedisShelf(f"{url}?ssl_ca_certs={certificate}", CODEC)) as shelf:
            assert mark(shelf, "k")

        assert "CERTIFICATE_VERIFY_FAILED" in refused(url)


def self_made(folder: Path) -> tuple[Path, Path]:
    """Return the files of a certificate for 127.0.0.1, and of its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    alternative = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(alternative, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    files = folder / "certificate.pem", folder / "key.pem"
    files[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    files[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return files


def test_a_url_of_sentinels_is_read() -> None:
    address = parse_address(
        "rediss+sentinel://me:p%40ss@one:1,two,[::1]:3/my%20service/4"
        "?socket_timeout=2&sentinel_password=other"
    )

    assert address.sentinels == (("one", 1), ("two", 26379), ("::1", 3))
    assert address.service == "my service"
    of_server = {"username": "me", "password": "p@ss", "db": 4, "ssl": True, "socket_timeout": 2.0}
    of_sentinels = {"username": None, "password": "other", "ssl": True, "socket_timeout": 2.0}
    assert of_server.items() <= address.options.items()
    assert of_sentinels.items() <= address.sentinel_options.items()
    assert not {"db", "host"} & address.sentinel_options.keys()


def test_sentinels_say_where_the_server_is(server: RedisServer) -> None:
    with redis_server.sentinel(server, "mine") as sentinel:
        url = f"redis+sentinel://127.0.0.1:{sentinel.port}"
        with closing(RedisShelf(f"{url}/mine/2", CODEC)) as shelf:
            number = mark(shelf, "k")
        with closing(RedisShelf(server.url[:-1] + "2", CODEC)) as direct:
            assert direct.read(()).sequence == number

        assert "do the sentinels know a service of this name?" in refused(f"{url}/other/2")
