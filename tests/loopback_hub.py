"""The part of the Hub's protocol that downloads and small uploads use, on 127.0.0.1 and in memory."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import huggingface_hub.constants
import huggingface_hub.file_download
import pytest

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Fault:
    """What goes wrong with the next `times` requests of one method: an answer, or a body that is cut or wrong."""

    method: str = "GET"
    status: int = 0
    code: str = ""  # X-Error-Code
    cut_at: int = 0
    reset: bool = False  # the cut is a reset (RST) instead of an end (FIN)
    corrupt: bool = False
    times: int = 1


class LoopbackHub:
    """Files of repositories: `files[repo, path]`; `cut` breaks every connection in the middle of a body.

    With `large` files are those of the Hub's large-file storage: their ETag is a SHA-256 and they are elsewhere.
    """

    def __init__(self) -> None:
        self.url = ""
        self.files: dict[tuple[str, str], bytes] = {}
        self.requests: list[tuple[str, str]] = []
        self.ranges: list[str] = []
        self.faults: list[Fault] = []
        self.cut = False
        self.large = False

    def fault(self, method: str, *, body: bool) -> Fault | None:
        """The fault that this request meets; `body` tells whether it would send a file's bytes."""
        for fault in self.faults:
            if fault.times > 0 and fault.method == method and (body or fault.status):
                fault.times -= 1
                return fault
        return None


@contextmanager
def running_hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    """A hub that huggingface_hub asks instead of the real one; gone when the context ends."""
    hub = LoopbackHub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    url = hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    for name, value in (
        ("ENDPOINT", url),
        ("HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}"),
        ("HF_HUB_OFFLINE", False),
        ("HF_HUB_DISABLE_XET", True),
        ("HF_HUB_DISABLE_TELEMETRY", True),
    ):
        monkeypatch.setattr(huggingface_hub.constants, name, value)
    monkeypatch.setattr(huggingface_hub.file_download.time, "sleep", lambda _: None)  # between its retries
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: LoopbackHub

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        self.hub.requests.append((self.command, path))
        match = re.fullmatch(r"/([^/]+/[^/]+)/(resolve|cdn)/([^/]+)/(.+)", path)
        if match is None:
            return self._error("EntryNotFound")
        repo, place, revision, name = match.groups()
        moved = self.hub.large and place == "resolve"
        fault = self.hub.fault(self.command, body=self.command == "GET" and not moved)
        if fault is not None and fault.status:
            return self._error(fault.code, fault.status)
        if not any(r == repo for r, _ in self.hub.files):
            return self._error("RepoNotFound")
        if revision not in ("main", COMMIT):
            return self._error("RevisionNotFound")
        if (repo, name) not in self.hub.files:
            return self._error("EntryNotFound")
        data = self.hub.files[repo, name]
        if moved:
            return self._redirect(data, f"/{repo}/cdn/{COMMIT}/{name}")
        self._content(data, fault)

    do_HEAD = do_GET

    def do_POST(self) -> None:
        self.hub.requests.append((self.command, self.path))
        body = self._body()
        if self.path == "/api/repos/create":
            request = json.loads(body)
            name = f"{request.get('organization') or 'me'}/{request['name']}"
            return self._json({"url": f"{huggingface_hub.constants.ENDPOINT}/{name}", "name": name})
        if self.path == "/api/validate-yaml":
            return self._json({"errors": [], "warnings": []})
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/(preupload|commit)/main", self.path.split("?")[0]):
            return self._preupload(body) if match[2] == "preupload" else self._commit(match[1], body)
        self._error("EntryNotFound")

    def _preupload(self, body: bytes) -> None:
        paths = [f["path"] for f in json.loads(body)["files"]]
        self._json({"files": [{"path": p, "uploadMode": "regular", "shouldIgnore": False} for p in paths]})

    def _commit(self, repo: str, body: bytes) -> None:
        for line in body.decode().splitlines():
            entry = json.loads(line)
            if entry["key"] == "file":
                self.hub.files[repo, entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
        url = f"{huggingface_hub.constants.ENDPOINT}/{repo}/commit/{COMMIT}"
        self._json({"success": True, "commitOid": COMMIT, "commitUrl": url, "hookOutput": ""})

    def _body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _redirect(self, data: bytes, path: str) -> None:
        """To another host name, as the Hub does with large files."""
        digest = hashlib.sha256(data).hexdigest()
        headers = {"X-Repo-Commit": COMMIT, "X-Linked-Size": str(len(data)), "X-Linked-ETag": f'"{digest}"'}
        place = self.hub.url.replace("127.0.0.1", "localhost") + path
        self._send(302, b"", {**headers, "ETag": f'"{digest}"', "Location": place, "Content-Length": "0"})

    def _content(self, data: bytes, fault: Fault | None) -> None:
        headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{hashlib.sha256(data).hexdigest()}"', "Accept-Ranges": "none"}
        body, status = data, 200
        if fault is not None and fault.corrupt:
            body = bytes([data[0] ^ 255]) + data[1:]
        if self.command == "GET" and not self.hub.cut and (wanted := self.headers.get("Range")):
            self.hub.ranges.append(wanted)
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            body, status = body[start:], 206
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        length = {"Content-Length": str(len(body))}
        if self.command == "GET" and self.hub.cut:
            body = body[: len(data) // 2]
        elif fault is not None and fault.cut_at:
            body = body[: fault.cut_at]
        self._send(status, body, {**headers, **length})
        if fault is not None and fault.reset:
            self.wfile.flush()
            time.sleep(0.05)  # what was sent arrives before the reset does
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()

    def _json(self, value: object, status: int = 200, headers: dict[str, str] | None = None) -> None:
        data = json.dumps(value).encode()
        self._send(
            status, data, {"Content-Type": "application/json", "Content-Length": str(len(data)), **(headers or {})}
        )

    def _error(self, code: str, status: int = 404) -> None:
        headers = {"X-Error-Code": code, "X-Error-Message": code} if code else {}
        self._json({"error": code}, status, {**headers, "X-Repo-Commit": COMMIT})

    def _send(self, status: int, data: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)
