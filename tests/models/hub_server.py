"""A small hub: the listing and the files of repositories over HTTP, with faults on demand."""

from __future__ import annotations

import asyncio
import hashlib
import socket
import struct
import threading
import time
from collections import defaultdict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

COMMIT = "a" * 40
TOKEN = "hf_canary_token"
LARGE = 512
_BLOCK = 1 << 18


@dataclass(frozen=True)
class Fault:
    """What goes wrong with one answer; `after` counts the bytes that are sent before."""

    kind: str = ""
    after: int = 0
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)


class FakeHub:
    """Repositories by name; a fault of a path (or "listing") is used up by one answer."""

    def __init__(self) -> None:
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.faults: defaultdict[str, deque[Fault]] = defaultdict(deque)
        self.always: dict[str, Fault] = {}
        self.xet: dict[str, str] = {}
        self.xet_storage = ""
        self.calls: list[tuple[str, str, str]] = []
        self.tokens: list[str] = []
        self.stalled = threading.Event()
        self.accessed = threading.Event()
        self.go_on = threading.Event()
        self.url = ""

    def gets(self, path: str) -> list[str]:
        """The Range of each request for a file's bytes."""
        return [span for method, asked, span in self.calls if (method, asked) == ("GET", path)]

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/api/models/{org}/{name}", self._listing)
        app.router.add_get("/api/models/{org}/{name}/revision/{revision:.+}", self._listing)
        app.router.add_get("/api/models/{org}/{name}/tree/{revision}", self._tree)
        app.router.add_get("/api/models/{org}/{name}/xet-read-token/{revision}", self._access)
        app.router.add_get("/{org}/{name}/resolve/{revision}/{path:.+}", self._file)
        return app

    def _fault(self, path: str) -> Fault:
        queue = self.faults[path]
        return queue.popleft() if queue else self.always.get(path, Fault())

    async def _listing(self, request: web.Request) -> web.Response:
        self._note(request, "listing")
        fault = self._fault("listing")
        if fault.kind == "trickle":
            response = web.StreamResponse()
            await response.prepare(request)
            await self._break_off(request, response, b"{", fault)
        if fault.status:
            return web.Response(status=fault.status, headers=fault.headers)
        if fault.kind == "stall":
            await self._stall(request)
        if fault.kind == "nonsense":
            return web.Response(text="<html>")
        files = self.repositories.get(f"{request.match_info['org']}/{request.match_info['name']}")
        if files is None:
            return web.Response(status=404, headers={"X-Error-Code": "RepoNotFound"})
        if request.match_info.get("revision", "main") not in {"main", COMMIT, "v1"}:
            return web.Response(status=404, headers={"X-Error-Code": "RevisionNotFound"})
        siblings = [_sibling(path, data) for path, data in files.items()]
        return web.json_response({"id": "x/y", "sha": COMMIT, "siblings": siblings})

    async def _tree(self, request: web.Request) -> web.Response:
        """What other tools ask for, to compare digests."""
        files = self.repositories[f"{request.match_info['org']}/{request.match_info['name']}"]
        entries = [_sibling(path, data) for path, data in files.items()]
        for entry in entries:
            entry |= {"type": "file", "path": entry["rfilename"], "oid": entry["blobId"]}
            if "lfs" in entry:
                entry["lfs"]["oid"] = entry["lfs"]["sha256"]
        return web.json_response(entries)

    async def _file(self, request: web.Request) -> web.StreamResponse:
        path = request.match_info["path"]
        self._note(request, path)
        head = request.method == "HEAD"
        fault = self.always.get(path, Fault()) if head else self._fault(path)
        if fault.status:
            return web.Response(status=fault.status, headers=fault.headers)
        repository = f"{request.match_info['org']}/{request.match_info['name']}"
        data = self.repositories[repository][path]
        if head:
            return self._facts(repository, path, data)
        return await self._send(request, data, fault)

    def _facts(self, repository: str, path: str, data: bytes) -> web.Response:
        """A file's metadata; of one in Xet storage where it is."""
        headers = {"X-Repo-Commit": COMMIT, "ETag": '"x"', "X-Linked-Size": str(len(data))}
        if path in self.xet:
            headers["X-Xet-Hash"] = self.xet[path]
            route = f"{self.url}/api/models/{repository}/xet-read-token/{COMMIT}"
            headers["X-Xet-Refresh-Route"] = route
        return web.Response(headers=headers)

    async def _access(self, request: web.Request) -> web.Response:
        """Access to the Xet storage."""
        self._note(request, "xet")
        self.accessed.set()
        fault = self._fault("xet")
        return web.Response(
            status=fault.status or 200,
            headers={
                "X-Xet-Cas-Url": self.xet_storage,
                "X-Xet-Access-Token": "xet",
                "X-Xet-Token-Expiration": str(int(time.time()) + 3600),
            },
        )

    async def _send(self, request: web.Request, data: bytes, fault: Fault) -> web.StreamResponse:
        span = request.headers.get("Range", "") if fault.kind != "no ranges" else ""
        if fault.kind == "truncate":
            data = data[: fault.after]
        if fault.kind == "too much":
            data += data
        start = int(span.removeprefix("bytes=").removesuffix("-") or 0)
        if span and start >= len(data):
            return web.Response(status=416)
        body = _spoilt(data[start:], fault)
        response = web.StreamResponse(status=206 if start else 200)
        if start:
            response.headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        if fault.kind != "no size":
            response.content_length = len(body)
        await response.prepare(request)
        if fault.kind in {"drop", "reset", "stall", "trickle"}:
            await self._break_off(request, response, body[: fault.after], fault)
            return response
        for at in range(0, len(body), _BLOCK):
            await response.write(body[at : at + _BLOCK])
        await response.write_eof()
        return response

    async def _break_off(
        self, request: web.Request, response: web.StreamResponse, body: bytes, fault: Fault
    ) -> None:
        await response.write(body)
        if fault.kind == "stall":
            await self._stall(request)
        while fault.kind == "trickle" and not self.go_on.is_set():
            await response.write(b"x")
            await asyncio.sleep(0.01)
        if request.transport is None:
            return
        if fault.kind == "reset":
            linger = struct.pack("ii", 1, 0)
            made: socket.socket = request.transport.get_extra_info("socket")
            made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        request.transport.close()

    async def _stall(self, request: web.Request) -> None:
        self.stalled.set()
        while not self.go_on.is_set() and request.transport is not None:  # noqa: ASYNC110 - looks at it
            await asyncio.sleep(0.01)

    def _note(self, request: web.Request, path: str) -> None:
        self.calls.append((request.method, path, request.headers.get("Range", "")))
        self.tokens.append(request.headers.get("Authorization", ""))


def _spoilt(body: bytes, fault: Fault) -> bytes:
    """The bytes that are sent."""
    return bytes(byte ^ 255 for byte in body) if fault.kind == "corrupt" else body


def _sibling(path: str, data: bytes) -> dict[str, Any]:
    """What the hub says of a file: large ones have a sha256, small ones git's digest."""
    git = hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
    entry: dict[str, Any] = {"rfilename": path, "size": len(data), "blobId": git}
    if len(data) > LARGE:
        sha256 = hashlib.sha256(data).hexdigest()
        entry["lfs"] = {"sha256": sha256, "size": len(data), "pointerSize": 134}
    return entry


@contextmanager
def serve(hub: FakeHub) -> Iterator[FakeHub]:
    """Serve from a thread until the block ends."""
    loop = asyncio.new_event_loop()
    ready, end = threading.Event(), asyncio.Event()

    async def run() -> None:
        runner = web.AppRunner(hub.app(), shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        hub.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        ready.set()
        await end.wait()
        await runner.cleanup()

    thread = threading.Thread(target=lambda: loop.run_until_complete(run()))
    thread.start()
    assert ready.wait(10)
    try:
        yield hub
    finally:
        hub.go_on.set()
        loop.call_soon_threadsafe(end.set)
        thread.join(10)
        loop.close()
