"""Run Pushpin and Varnish as the files beside this one configure them.

    python launch.py --app-port 8000

Only ports and folders are replaced, so what is tested is what is copied. Needs the Debian packages
pushpin, varnish and varnish-modules, and no rights. Never touches a Pushpin or Varnish that it did
not start. What it started ends with it, even if it is killed.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import http.client
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from types import TracebackType

HERE = Path(__file__).resolve().parent
BINARIES = ("pushpin", "condure", "zurl", "varnishd")
# Debian keeps varnishd in sbin, which is not on every user's path.
PATH = os.environ.get("PATH", os.defpath) + ":/usr/sbin"

# Below Linux's ephemeral range: no outgoing connection takes a port while its service is stopped.
FREE_PORTS = range(20_000, 32_000)

# Room for 7,500 bytes of Surrogate-Key and the copies that VCL makes of them. The defaults are a
# line of 8k, a head of 32k, workspaces of 96k. Out of workspace, an object loses its keys.
VARNISH_PARAMETERS = {
    "http_resp_hdr_len": "16k",
    "http_resp_size": "64k",
    "workspace_backend": "256k",
    "workspace_client": "256k",
}


class EdgeMissing(Exception):  # noqa: N818 - a state, as in "edge missing"
    """A program of the edge is not installed."""


class EdgeFailed(Exception):  # noqa: N818
    """A program of the edge did not start; the text ends with its log."""


class Edge:
    """Pushpin in front of Varnish in front of the app at `app_port`, on loopback.

    A port that is not given is a free one. Pushpin asks `proxied_port` if that is given: something
    else in front of the cache. `over_http` is how the paths begin whose WebSockets are asked of the
    app over HTTP; those of other paths are passed on. What it started ends with the thread that
    started it.

        with Edge(app_port=8000) as edge:
            serve(app, edge.app_port)
            get(edge.url)
    """

    def __init__(
        self,
        *,
        app_port: int | None = None,
        client_port: int | None = None,
        control_port: int | None = None,
        cache_port: int | None = None,
        proxied_port: int | None = None,
        over_http: Sequence[str] = (),
        start_timeout_s: float = 30.0,
    ) -> None:
        free = free_ports()
        self.app_port = app_port or next(free)
        self.client_port = client_port or next(free)
        self.control_port = control_port or next(free)
        self.cache_port = cache_port or next(free)
        self.proxied_port = proxied_port or self.cache_port
        self.url = f"http://127.0.0.1:{self.client_port}"
        self.cache_url = f"http://127.0.0.1:{self.cache_port}"
        self.control_url = f"http://127.0.0.1:{self.control_port}"
        self.cdn_url = f"varnish://127.0.0.1:{self.cache_port}"
        self.over_http = over_http
        self.start_timeout_s = start_timeout_s
        # Not in the default temporary folder: Pushpin's socket paths are limited to 107 characters.
        self._rundir = Path(f"/tmp/edge-{os.getpid()}-{self.client_port}")
        self._varnish = Service(varnish_command(self._rundir, self.cache_port), self._rundir)
        self._pushpin = Service(pushpin_command(self._rundir), self._rundir)

    def __enter__(self) -> Edge:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start both and return when a request gets through."""
        check_binaries()
        self._rundir.mkdir(mode=0o700)
        try:
            self._write_configuration()
            self.start_varnish()
            self.start_pushpin()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop both and remove what they wrote."""
        self._pushpin.stop()
        self._varnish.stop()
        shutil.rmtree(self._rundir, ignore_errors=True)

    def start_varnish(self) -> None:
        """Start Varnish, with an empty cache, and return when it answers."""
        self._varnish.start()
        self._varnish.wait_until(lambda: refuses_empty_purge(self.cache_port), self.start_timeout_s)

    def stop_varnish(self) -> None:
        """Stop Varnish: connections to it are refused."""
        self._varnish.stop()

    def pause_varnish(self) -> None:
        """Freeze Varnish: connections to it are accepted and hang."""
        self._varnish.signal(signal.SIGSTOP)

    def resume_varnish(self) -> None:
        """Let a frozen Varnish go on."""
        self._varnish.signal(signal.SIGCONT)

    def start_pushpin(self) -> None:
        """Start Pushpin, and return when what is published reaches a held client.

        Needs Varnish to run, not the app.
        """
        self._pushpin.start()
        self._pushpin.wait_until(self._delivers, self.start_timeout_s)

    def stop_pushpin(self) -> None:
        """Stop Pushpin: clients lose their streams."""
        self._pushpin.stop()

    def pause_pushpin(self) -> None:
        """Freeze Pushpin: connections to it are accepted and hang."""
        self._pushpin.signal(signal.SIGSTOP)

    def resume_pushpin(self) -> None:
        """Let a frozen Pushpin go on."""
        self._pushpin.signal(signal.SIGCONT)

    @property
    def verify_key(self) -> str:
        """What Pushpin signs its requests with: the app's GRIP_VERIFY_KEY."""
        lines = (HERE / "pushpin.conf").read_text().splitlines()
        return next(line.removeprefix("sig_key=") for line in lines if line.startswith("sig_key="))

    def _delivers(self) -> bool:
        # Pushpin's parts find each other at their leisure; until then streams are refused or cut.
        with (
            contextlib.suppress(OSError, http.client.HTTPException),
            closing_client(self.client_port) as client,
        ):
            client.request("GET", "/.grip-edge/probe")
            stream = client.getresponse()
            if stream.status == 200 and stream.readline() == b"held\n":
                publish(self.control_port, "grip-edge-probe", "delivered\n")
                return stream.readline() == b"delivered\n"
        return False

    def _write_configuration(self) -> None:
        rundir = self._rundir
        write_copy("default.vcl", rundir, {'.port = "8000";': f'.port = "{self.app_port}";'})
        target = f"127.0.0.1:{self.proxied_port}"
        sockets = "".join(f"*,path_beg={p} {target},over_http\n" for p in self.over_http)
        write_copy("routes", rundir, {"* 127.0.0.1:6081": f"{sockets}* {target}"})
        write_copy(
            "pushpin.conf",
            rundir,
            {
                "rundir=/run/pushpin\n": f"rundir={rundir}\n",
                "logdir=/var/log/pushpin\n": f"logdir={rundir}\n",
                "\nhttp_port=7999\n": f"\nhttp_port=127.0.0.1:{self.client_port}\n",
                "push_in_http_port=5561\n": f"push_in_http_port={self.control_port}\n",
            },
        )


class Service:
    """One program and the processes that it starts."""

    def __init__(self, command: list[str], rundir: Path) -> None:
        self.command = command
        self.log = rundir / f"{command[0]}.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        if self.is_running:
            raise EdgeFailed(f"{self.command[0]} runs already")
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PATH": PATH},
                # Its own session: Ctrl-C reaches only the launcher, which stops things in order.
                start_new_session=True,
                preexec_fn=end_with_parent,
            )

    def wait_until(self, is_ready: Callable[[], bool], timeout_s: float) -> None:
        """Poll `is_ready`; raise with the log if the program ends or the time is up."""
        deadline = time.monotonic() + timeout_s
        while not is_ready():
            if not self.is_running:
                raise EdgeFailed(f"{self.command[0]} ended at start:\n{self._read_log()}")
            if time.monotonic() > deadline:
                raise EdgeFailed(
                    f"{self.command[0]} is silent after {timeout_s:g} s:\n{self._read_log()}"
                )
            time.sleep(0.02)

    def signal(self, number: signal.Signals) -> None:
        """Signal the program and its children; each may have a process group of its own."""
        if self._process is None:
            return
        for pid in process_tree(self._process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def stop(self, timeout_s: float = 5.0) -> None:
        if self._process is None:
            return
        self.signal(signal.SIGCONT)
        tree = process_tree(self._process.pid)
        self._process.terminate()
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            for pid in tree:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self._process.wait()
        self._process = None

    def _read_log(self, size: int = 4000) -> str:
        return self.log.read_text(errors="replace")[-size:]


def varnish_command(rundir: Path, port: int) -> list[str]:
    command = ["varnishd", "-F", "-n", str(rundir / "varnish"), "-f", str(rundir / "default.vcl")]
    command += ["-a", f"127.0.0.1:{port}", "-s", "malloc,64m"]
    # No jail: it would need root, and the run folder to be readable by other users.
    command += ["-j", "none"]
    for name, value in VARNISH_PARAMETERS.items():
        command += ["-p", f"{name}={value}"]
    return command


def pushpin_command(rundir: Path) -> list[str]:
    return ["pushpin", f"--config={rundir / 'pushpin.conf'}", "--merge-output"]


def check_binaries() -> None:
    """Raise `EdgeMissing` with what to install."""
    missing = [name for name in BINARIES if shutil.which(name, path=PATH) is None]
    if missing:
        raise EdgeMissing(
            f"not found: {', '.join(missing)}; on Debian and Ubuntu:"
            " apt-get install pushpin varnish varnish-modules"
        )


def write_copy(name: str, folder: Path, replacements: Mapping[str, str]) -> None:
    """Write the shipped file `name` to `folder`, each of `replacements` made exactly once."""
    text = (HERE / name).read_text()
    for old, new in replacements.items():
        if (found := text.count(old)) != 1:
            raise EdgeFailed(f"{name}: expected {old.strip()!r} once, found it {found} times")
        text = text.replace(old, new)
    (folder / name).write_text(text)


def free_ports() -> Iterator[int]:
    """Yield loopback ports that nobody listens on, each once."""
    return filter(is_free, random.sample(FREE_PORTS, len(FREE_PORTS)))


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def refuses_empty_purge(port: int) -> bool:
    """Whether the shipped VCL listens there: without keys a purge is harmless, and a mistake."""
    with contextlib.suppress(OSError, http.client.HTTPException), closing_client(port) as client:
        client.request("PURGEKEYS", "/")
        return client.getresponse().status == 400
    return False


def publish(control_port: int, channel: str, content: str) -> None:
    item = {"channel": channel, "formats": {"http-stream": {"content": content}}}
    with closing_client(control_port) as client:
        client.request("POST", "/publish/", json.dumps({"items": [item]}))
        client.getresponse()


def closing_client(port: int) -> contextlib.closing[http.client.HTTPConnection]:
    return contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=1))


def process_tree(pid: int) -> list[int]:
    """The process and its descendants, parents first."""
    found = [pid]
    with contextlib.suppress(OSError):
        for children in Path(f"/proc/{pid}/task").glob("*/children"):
            for child in children.read_text().split():
                found += process_tree(int(child))
    return found


_libc = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def end_with_parent() -> None:
    """In a child: be told to stop when the parent dies, however it dies. Linux only."""
    if sys.platform == "linux":
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def main() -> None:
    parser = argparse.ArgumentParser(description="Run Pushpin and Varnish in front of an app.")
    parser.add_argument("--app-port", type=int, default=8000)
    parser.add_argument("--client-port", type=int, default=7999)
    parser.add_argument("--control-port", type=int, default=5561)
    parser.add_argument("--cache-port", type=int, default=6081)
    edge = Edge(**vars(parser.parse_args()))
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with edge:
            print(f"clients   {edge.url}")
            print(f"app       http://127.0.0.1:{edge.app_port}")
            print(f"cache     {edge.cache_url}")
            print(f"GRIP_URL  {edge.control_url}", flush=True)
            os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
            sys.exit("a program of the edge ended")
    except (EdgeMissing, EdgeFailed) as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
