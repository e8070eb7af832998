"""A Kaggle of one's own on the loopback interface, which does whatever a test needs it to do.

It speaks to the real `kaggle` client, which looks for it here when KAGGLE_API_ENVIRONMENT is TEST:
an API that takes credentials and answers with a redirect, and a storage that serves ranges.
"""

import base64
import contextlib
import dataclasses
import errno
import hashlib
import http.server
import json
import random
import re
import socket
import struct
import threading
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator

PORT = 7777  # the client's; it cannot be moved
USER, KEY, TOKEN = "somebody", "the-right-key", "KGAT_the-right-token"
MODIFIED = "Tue, 16 Jan 2018 12:00:00 GMT"

# Answers a request in another way than rightly; returns False to let it be answered rightly.
Fault = Callable[["Handler"], bool]


def archive(path, *, seed: int, size: int = 600_000, members: int = 5) -> bytes:
    """A zip of random bytes that cannot be packed; the same seed gives the same zip."""
    generator = random.Random(seed)
    with zipfile.ZipFile(path, "w") as zipped:
        for number in range(members):
            info = zipfile.ZipInfo(f"{path.stem}/{number}.bin", (2018, 1, 16, 12, 0, 0))
            zipped.writestr(info, generator.randbytes(size // members))
    return path.read_bytes()


@dataclasses.dataclass
class Kaggle:
    """What the server has and does.

    Attributes:
        files: `slug/file` to its bytes.
        api: Faults of the next requests to the API, the first for the first; then it is well.
        storage: Faults of the next requests for bytes.
        asked: What was asked for, in order: the name, and the Range or "".
        rate: Bytes a second; None for as fast as can be.
        validators: Which of ETag and Last-Modified its answers carry.
        modified: When the files were last modified.
        ranges: Whether it serves parts of files.
        accepted: Whether the rules are.
    """

    files: dict[str, bytes]
    api: list[Fault] = dataclasses.field(default_factory=list)
    storage: list[Fault] = dataclasses.field(default_factory=list)
    asked: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    rate: float | None = None
    validators: tuple[str, ...] = ("ETag", "Last-Modified")
    modified: str = MODIFIED
    ranges: bool = True
    accepted: bool = True


class Handler(http.server.BaseHTTPRequestHandler):
    kaggle: Kaggle
    protocol_version = "HTTP/1.1"
    timeout = 10

    def log_message(self, format, *args):  # noqa: A002 - the name is the base class's
        pass

    def do_POST(self):
        length = int(self.headers.get("Content-Length", 0))
        request = json.loads(self.rfile.read(length) or "{}")
        method = self.path.rpartition("/")[2]
        if method == "IntrospectToken":
            if request["token"] != TOKEN:
                self.give(404, b'{"code": 404, "message": "no such token"}', "application/json")
            else:
                body = json.dumps({"active": True, "username": USER}).encode()
                self.give(200, body, "application/json")
            return
        if method == "GenerateAccessToken":
            if request["refreshToken"] != TOKEN:
                self.fail(401, "revoked")
            else:
                body = json.dumps({"token": TOKEN, "expiresIn": 43200}).encode()
                self.give(200, body, "application/json")
            return
        if self.kaggle.api and self.kaggle.api.pop(0)(self):
            return
        basic = "Basic " + base64.b64encode(f"{USER}:{KEY}".encode()).decode()
        if self.headers.get("Authorization") not in (basic, f"Bearer {TOKEN}"):
            self.fail(401, "Unauthenticated")
        elif method == "DownloadDataFile":
            self.redirect(f"{request['competitionName']}/{request['fileName']}")
        elif method == "DownloadDataset":
            slug = request["datasetSlug"]
            self.redirect(f"{request['ownerSlug']}/{slug}/{slug}.zip")
        else:
            self.fail(404, f"no method {method}")

    def redirect(self, name: str) -> None:
        if not self.kaggle.accepted:
            self.fail(403, "You must accept this competition's rules")
        elif name not in self.kaggle.files:
            self.fail(404, "Not found")
        else:
            self.give(302, b"", "text/plain", Location=f"/storage/{name}?signature=1")

    def do_GET(self):
        name = self.path.partition("?")[0].removeprefix("/storage/")
        self.kaggle.asked.append((name.rpartition("/")[2], self.headers.get("Range", "")))
        if self.kaggle.storage and self.kaggle.storage.pop(0)(self):
            return
        self.serve(self.kaggle.files[name])

    def serve(self, body: bytes, *, send: int | None = None, claim_length: bool = True) -> None:
        """Serves a file, or the range that was asked for; `send` bytes of it at most."""
        etag = f'"{hashlib.md5(body).hexdigest()}"'
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        same = self.headers.get("If-Range") in (None, etag, self.kaggle.modified)
        if wanted and int(wanted[1]) >= len(body):
            self.fail(416, "no such range")
            return
        start = int(wanted[1]) if wanted and same and self.kaggle.ranges else 0
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        if claim_length:
            self.send_header("Content-Length", str(len(body) - start))
        else:
            self.send_header("Connection", "close")
        for name, value in {"ETag": etag, "Last-Modified": self.kaggle.modified}.items():
            if name in self.kaggle.validators:
                self.send_header(name, value)
        if self.kaggle.ranges:
            self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Type", "application/zip")
        self.end_headers()
        self.pour(body[start:][:send])

    def pour(self, body: bytes) -> None:
        if self.kaggle.rate is None:
            self.wfile.write(body)
            return
        for at in range(0, len(body), 8192):
            self.wfile.write(body[at : at + 8192])
            time.sleep(8192 / self.kaggle.rate)

    def give(self, status: int, body: bytes, kind: str, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Type", kind)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def fail(self, status: int, message: str, **headers: str) -> None:
        body = json.dumps({"code": status, "message": message}).encode()
        self.give(status, body, "application/json", **headers)

    def hang_up(self) -> None:
        """Resets the connection."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.connection.close()


def status(code: int, **headers: str) -> Fault:
    """An error of Kaggle's own."""

    def fault(handler: Handler) -> bool:
        handler.fail(code, f"error {code}", **headers)
        return True

    return fault


def page(kind: str, body: bytes = b"<!DOCTYPE html><html><title>Sign in</title></html>") -> Fault:
    """A web page, called what `kind` says."""

    def fault(handler: Handler) -> bool:
        handler.give(200, body, kind)
        return True

    return fault


def broken(after: int) -> Fault:
    """A connection that is reset in the middle of a body."""

    def fault(handler: Handler) -> bool:
        body = handler.kaggle.files[handler.path.partition("?")[0].removeprefix("/storage/")]
        handler.serve(body, send=after)
        handler.wfile.flush()
        time.sleep(0.05)  # a reset overtakes bytes that the client has not read
        handler.hang_up()
        return True

    return fault


def short(after: int, *, claim_length: bool = True) -> Fault:
    """A body that ends early, with or without a length to know it by."""

    def fault(handler: Handler) -> bool:
        body = handler.kaggle.files[handler.path.partition("?")[0].removeprefix("/storage/")]
        handler.serve(body, send=after, claim_length=claim_length)
        handler.close_connection = True
        return True

    return fault


def claiming(length: str) -> Fault:
    """A whole body of which the server says something odd."""

    def fault(handler: Handler) -> bool:
        handler.send_response(200)
        handler.send_header("Content-Length", length)
        handler.send_header("Content-Type", "application/zip")
        handler.send_header("Connection", "close")
        handler.end_headers()
        name = handler.path.partition("?")[0].removeprefix("/storage/")
        handler.wfile.write(handler.kaggle.files[name])
        handler.close_connection = True
        return True

    return fault


def endless(*, packed: bool = False) -> Fault:
    """A body that begins like a zip, has no length and goes on for as long as anybody listens.

    After 64 MiB it ends, so that a client that listens for ever fills no disk.
    """

    def fault(handler: Handler) -> bool:
        handler.send_response(200)
        handler.send_header("Connection", "close")
        if packed:
            handler.send_header("Content-Encoding", "gzip")
        handler.end_headers()
        pack = zlib.compressobj(wbits=31)
        piece = b"PK\3\4" + bytes(1 << 20)
        for _ in range(64):
            handler.wfile.write(pack.compress(piece) if packed else piece)
        handler.close_connection = True
        return True

    return fault


def changing(files: dict[str, bytes], *, then: Fault | None = None) -> Fault:
    """The files on the server become others."""

    def fault(handler: Handler) -> bool:
        handler.kaggle.files |= files
        return then(handler) if then else False

    return fault


def careless(handler: Handler) -> bool:
    """A server that resumes whatever it has now, though it was told of what version."""
    del handler.headers["If-Range"]
    return False


def well(_: Handler) -> bool:
    """No fault."""
    return False


@contextlib.contextmanager
def running(kaggle: Kaggle) -> Iterator[Kaggle]:
    """Runs the server on its port, which another run of the tests may hold for a while."""
    handler = type("KaggleHandler", (Handler,), {"kaggle": kaggle})
    give_up = time.monotonic() + 120
    while True:
        try:
            server = http.server.ThreadingHTTPServer(("127.0.0.1", PORT), handler)
            break
        except OSError as error:
            if error.errno != errno.EADDRINUSE or time.monotonic() > give_up:
                raise
            time.sleep(0.2)
    server.handle_error = lambda *_: None  # a client that was killed is none
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield kaggle
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
