"""The part of the Hub's protocol that downloads and small uploads use, on 127.0.0.1 and in memory."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import huggingface_hub.constants
import huggingface_hub.file_download
import pytest

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class LoopbackHub:
    """Files of repositories: `files[repo, path]`; `cut` breaks every connection in the middle of a body."""

    def __init__(self) -> None:
        self.files: dict[tuple[str, str], bytes] = {}
        self.requests: list[tuple[str, str]] = []
        self.cut = False


@contextmanager
def running_hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    """A hub that huggingface_hub asks instead of the real one; gone when the context ends."""
    hub = LoopbackHub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    url = f"http://127.0.0.1:{server.server_address[1]}"
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
        match = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        if match is None:
            return self._error("EntryNotFound")
        repo, revision, name = match.groups()
        if not any(r == repo for r, _ in self.hub.files):
            return self._error("RepoNotFound")
        if revision not in ("main", COMMIT):
            return self._error("RevisionNotFound")
        if (repo, name) not in self.hub.files:
            return self._error("EntryNotFound")
        self._content(self.hub.files[repo, name])

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

    def _content(self, data: bytes) -> None:
        cut = self.hub.cut and self.command == "GET"
        headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{hashlib.sha256(data).hexdigest()}"', "Accept-Ranges": "none"}
        self._send(200, data[: len(data) // 2] if cut else data, {**headers, "Content-Length": str(len(data))})

    def _json(self, value: object, status: int = 200, headers: dict[str, str] | None = None) -> None:
        data = json.dumps(value).encode()
        self._send(
            status, data, {"Content-Type": "application/json", "Content-Length": str(len(data)), **(headers or {})}
        )

    def _error(self, code: str) -> None:
        self._json({"error": code}, 404, {"X-Error-Code": code, "X-Error-Message": code, "X-Repo-Commit": COMMIT})

    def _send(self, status: int, data: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)
