"""The page at `/`: its files, and GET /overview, what it shows of the endpoint.

The files are served as they are. They name no other host, and the policy sent with them allows
none.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aiohttp import web

from emulator.endpoint import Endpoint
from emulator.jobs import IN_PROGRESS, IN_QUEUE, Job
from emulator.roster import state
from emulator.web import Gate, Handler, json_answer

SHOWN_JOBS = 50
_FILES = Path(__file__).parent / "static"
_TYPES = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
# What a longer job asks for is not looked up: it would be parsed for its name alone.
_NAMED_BYTES = 100_000


class Page:
    """Serves the page; clock: the endpoint's own, in seconds."""

    def __init__(self, endpoint: Endpoint, endpoint_id: str, clock: Callable[[], float]) -> None:
        """Show this endpoint."""
        self._endpoint = endpoint
        self._endpoint_id = endpoint_id
        self._clock = clock
        self._names: dict[str, str] = {}

    def routes(self, gate: Gate) -> list[web.RouteDef]:
        """List all routes; the files need no key, what they show does."""
        overview = gate.client("overview", self.overview)
        files = sorted(path for path in _FILES.iterdir() if path.suffix in _TYPES)
        return [
            web.get("/overview", overview, allow_head=False),
            web.get("/", _file(_FILES / "index.html")),
            *(web.get(f"/static/{path.name}", _file(path)) for path in files),
        ]

    async def overview(self, _: web.Request) -> web.Response:
        """Tell how the endpoint stands: counts, workers, the newest jobs first."""
        jobs = list(self._endpoint.jobs.values())[-SHOWN_JOBS:][::-1]
        self._names = {job.id: self._names.get(job.id) or _name(job) for job in jobs}
        workers = self._endpoint.roster.all()
        answer = {
            "endpoint": self._endpoint_id,
            "jobs": self._endpoint.health()["jobs"],
            "workers": [
                {"id": worker.id, "state": state(worker), "jobs": len(worker.jobs)}
                for worker in workers
            ],
            "recent": [self._recent(job) for job in jobs],
        }
        return json_answer(answer)

    def _recent(self, job: Job) -> dict[str, Any]:
        """One job without what it was asked and what it gave; times are milliseconds.

        The time that still runs, of waiting or of working, is up to now.
        """
        answer = job.answer()
        fields = {key: answer.get(key) for key in ("id", "status", "delayTime", "executionTime")}
        now = self._clock()
        if job.status == IN_QUEUE:
            fields["delayTime"] = round((now - job.submitted) * 1000)
        elif job.status == IN_PROGRESS and job.taken is not None:
            fields["executionTime"] = round((now - job.taken) * 1000)
        return {**fields, "worker": job.worker_id, "name": self._names[job.id]}


def _name(job: Job) -> str:
    """What a job asks for, such as "/generate"; "" when it is not to be seen."""
    if len(job.payload) > _NAMED_BYTES:
        return ""
    asked = json.loads(job.payload).get("input")
    if not isinstance(asked, dict):
        return ""
    api = asked.get("api")
    name = asked.get("openai_route") or (isinstance(api, dict) and api.get("endpoint"))
    return name[:100] if isinstance(name, str) else ""


def _file(path: Path) -> Handler:
    """Make a handler that answers with a file, read once."""
    body, kind = path.read_bytes(), _TYPES[path.suffix]

    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=body, content_type=kind, charset="utf-8", headers=_HEADERS)

    return answer
