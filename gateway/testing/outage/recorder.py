"""A way station in front of the database that writes down every batch the database accepted.

It forwards `/write` and `/query` as they are. Between `close` and `open` it refuses connections, as
a machine that is off does. What is written down: when, and the lines, in the order in which the
database answered; `runs()` reads them back. One gateway writes one request at a time.
"""

from __future__ import annotations

import gzip
import http.client
import struct
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

from gateway.runtime.clock import now_ns

_HEAD = struct.Struct("<qI")  # when answered, bytes of the body behind it
_TIMEOUT_S = 30.0


class Run(NamedTuple):
    """One accepted request."""

    time_ns: int
    lines: list[str]


class Recorder:
    """Listens on `port`, forwards to `target_port`."""

    def __init__(self, path: Path, port: int, target_port: int) -> None:
        self._path = path
        self.port = port
        self._target_port = target_port
        self._lock = threading.Lock()
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None
        self.accepted_count = 0  # requests

    def open(self) -> None:
        server = _Server(("127.0.0.1", self.port), _Handler)
        server.recorder = self
        server.target_port = self._target_port
        self._server = server
        self._thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()
            server.cut()
        if self._thread is not None:
            self._thread.join()

    def note(self, body: bytes) -> None:
        """`body` as it came, compressed or not."""
        with self._lock, self._path.open("ab") as file:
            file.write(_HEAD.pack(now_ns(), len(body)) + body)
            self.accepted_count += 1

    def runs(self) -> Iterator[Run]:
        with self._path.open("rb") as file:
            while head := file.read(_HEAD.size):
                time_ns, size = _HEAD.unpack(head)
                body = file.read(size)
                if body[:2] == b"\x1f\x8b":
                    body = gzip.decompress(body)
                yield Run(time_ns, body.decode().split("\n"))


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True
    recorder: Recorder
    target_port: int

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._open: set[Any] = set()

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that was cut is what this is for."""

    def cut(self) -> None:
        """Kept-alive connections would outlive the listener."""
        for request in list(self._open):
            self.shutdown_request(request)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 65_536
    server: _Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        headers = {k: v for k, v in self.headers.items() if k.lower() != "host"}
        target = http.client.HTTPConnection("127.0.0.1", self.server.target_port, _TIMEOUT_S)
        try:
            target.request("POST", self.path, body, headers)
            answer = target.getresponse()
            content = answer.read()
        except OSError:
            self.close_connection = True
            return
        finally:
            target.close()
        if answer.status == 204 and self.path.startswith("/write"):
            self.server.recorder.note(body)
        self.send_response(answer.status)
        for name in ("Content-Type", "Content-Encoding", "Retry-After"):
            if answer.headers.get(name):
                self.send_header(name, answer.headers[name])
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_arguments: Any) -> None:
        """Nothing: the record is the log."""
