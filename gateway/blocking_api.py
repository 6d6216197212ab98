"""The blocking API's port: /api/v1/*, one job for each request.

text-generation-webui@e18a0460 extensions/api/blocking_api.py. That one answers 200 with an empty
body where something fails; here failures have a status and {"error": {"message": "..."}}.
"""

from __future__ import annotations

from aiohttp import web

from gateway.job_input import blocking_input
from gateway.jobs import Jobs
from gateway.web import json_answer, read_object
from worker.job import BLOCKING_METHODS, BLOCKING_PREFIX


class BlockingApi:
    """Handlers of the blocking API."""

    def __init__(self, jobs: Jobs) -> None:
        """Answer by jobs."""
        self._jobs = jobs

    def routes(self) -> list[web.RouteDef]:
        """All routes, from the worker's own table."""
        return [
            web.route(method, BLOCKING_PREFIX + endpoint, self.answer)
            for endpoint, methods in BLOCKING_METHODS.items()
            for method in methods
        ]

    async def answer(self, request: web.Request) -> web.Response:
        """Answer with the job's output."""
        endpoint = request.path.removeprefix(BLOCKING_PREFIX)
        body = await read_object(request)
        return json_answer(await self._jobs.result(blocking_input(request.method, endpoint, body)))
