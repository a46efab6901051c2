"""Base of the loopback servers: HTTP on 127.0.0.1 with ranges, planted faults, a throttle, and traffic counters."""

import contextlib
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeVar

PIECE = 64 * 1024


@dataclass(frozen=True)
class Fault:
    """A fault planted in one answer."""

    status: int = 0
    """Status of the answer; 0 answers as usual."""
    drop_after: int = -1
    """Closes the connection after this many bytes of the answer; -1 never does."""
    stall: float = 0.0
    """Seconds to wait between the headers and the body."""
    corrupt: bool = False
    """Flips a bit in the middle of the answer."""
    retry_after: str = ""
    """Value of the Retry-After header; empty sends none."""


@dataclass
class Traffic:
    """Counts requests and bytes. `choose` may return a fault for a request (method, path)."""

    choose: Callable[[str, str], Fault | None] = lambda method, path: None
    bytes_per_second: float = 0.0
    """Rate of uploads and downloads, per connection; 0 does not limit it."""
    received: int = 0
    sent: int = 0
    requests: Counter[str] = field(default_factory=Counter)
    """Number of requests by "METHOD path"."""
    sent_by_path: Counter[str] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def pass_by(self, num_bytes: int) -> None:
        if self.bytes_per_second:
            time.sleep(num_bytes / self.bytes_per_second)


def failing(share: float, seed: int = 0, *, only: str = "") -> Callable[[str, str], Fault | None]:
    """Returns a `choose` that lets a share of the requests fail, by status 429, 500 or 503 or a dropped connection."""
    faults = [Fault(status=503), Fault(status=429), Fault(status=500), Fault(drop_after=0), Fault(drop_after=1000)]
    dice = random.Random(seed)

    def choose(method: str, path: str) -> Fault | None:
        return dice.choice(faults) if only in path and dice.random() < share else None

    return choose


class Handler(BaseHTTPRequestHandler):
    """Base of the handlers; a subclass implements `answer`, which calls `send`."""

    protocol_version = "HTTP/1.1"
    server: "Server"
    fault: Fault | None = None

    def answer(self) -> None:
        raise NotImplementedError

    def _handle(self) -> None:
        traffic = self.server.traffic
        path = self.path.partition("?")[0]
        self.unread = int(self.headers.get("Content-Length", 0))
        with traffic.lock:
            traffic.requests[f"{self.command} {path}"] += 1
            self.fault = traffic.choose(self.command, self.path)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            if self.fault and self.fault.status:
                self.body()
                self.send(
                    b"a fault",
                    self.fault.status,
                    {"Retry-After": self.fault.retry_after} if self.fault.retry_after else {},
                )
                return
            self.answer()
            # Reads what `answer` left of the request, so that the next request starts at its beginning.
            self.body()

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _handle  # noqa: N815

    def pieces(self) -> Iterator[bytes]:
        """Yields the body of the request."""
        while self.unread > 0:
            piece = self.rfile.read(min(PIECE, self.unread))
            if not piece:
                raise ConnectionResetError
            self.unread -= len(piece)
            with self.server.traffic.lock:
                self.server.traffic.received += len(piece)
            self.server.traffic.pass_by(len(piece))
            yield piece

    def body(self) -> bytes:
        return b"".join(self.pieces())

    def send(self, content: bytes, status: int = 200, headers: dict[str, str] | None = None) -> None:
        """Sends the whole content, or the requested range of it."""
        headers = dict(headers or {})
        size, fault = len(content), self.fault or Fault()
        requested = self.headers.get("Range", "")
        if status == 200 and requested.startswith("bytes="):
            first, _, last = requested[6:].partition("-")
            start = int(first) if first else max(0, size - int(last))
            end = min(int(last) + 1, size) if last and first else size
            if start >= size:
                content, status, headers["Content-Range"] = b"", 416, f"bytes */{size}"
            else:
                content, status = content[start:end], 206
                headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
        if fault.corrupt and content:
            middle = len(content) // 2
            content = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
        self.send_response(status)
        for name, value in {"Accept-Ranges": "bytes", "Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        limit = len(content) if fault.drop_after < 0 else fault.drop_after
        if fault.stall:
            self.wfile.flush()
            time.sleep(fault.stall)
        for where in range(0, min(limit, len(content)), PIECE):
            piece = content[where : min(where + PIECE, limit)]
            self.server.traffic.pass_by(len(piece))
            self.wfile.write(piece)
            with self.server.traffic.lock:
                self.server.traffic.sent += len(piece)
                self.server.traffic.sent_by_path[self.path.partition("?")[0]] += len(piece)
        if limit < len(content):
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True

    def log_message(self, *arguments: Any) -> None:
        pass


Running = TypeVar("Running", bound="Server")


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, handler: type[Handler], port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), handler)
        self.traffic = Traffic()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass


@contextlib.contextmanager
def running(server: Running) -> Iterator[Running]:
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
