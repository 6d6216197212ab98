"""The page's files and GET /overview, without a browser."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from emulator.page import SHOWN_JOBS
from emulator.server import running_emulator
from tests.emulator.helpers import FAST, client_session, hand_worker

STATIC = Path(__file__).parent.parent.parent / "emulator" / "static"
FILES = sorted(path.name for path in STATIC.iterdir())


async def get(url: str, **headers: str) -> tuple[int, dict[str, str], str]:
    """GET; status, headers, body."""
    async with aiohttp.ClientSession() as http, http.get(url, headers=headers) as response:
        sent = {str(name): value for name, value in response.headers.items()}
        return response.status, sent, await response.text()


async def overview(url: str) -> Any:
    """The overview's JSON."""
    async with aiohttp.ClientSession() as http, http.get(url + "/overview") as response:
        return await response.json()


@pytest.mark.parametrize("path", ["/", *(f"/static/{name}" for name in FILES)])
async def test_files_are_served_with_a_policy_that_allows_no_other_host(path: str) -> None:
    async with running_emulator() as emulator:
        status, headers, _ = await get(emulator.url + path)

    policy = headers["Content-Security-Policy"]
    assert 200 == status
    assert policy.startswith("default-src 'none';")
    assert {"'none'", "'self'"} == set(
        re.findall(r"-(?:src|uri|action|ancestors) (\S+?)(?:;|$)", policy)
    )


@pytest.mark.parametrize("path", ["/static/", "/static/..%2fpage.py", "/static/../page.py", "/x"])
async def test_nothing_else_is_served(path: str) -> None:
    async with running_emulator() as emulator:
        status, _, _ = await get(emulator.url + path)

    assert 404 == status


@pytest.mark.parametrize("name", FILES)
def test_no_file_names_another_host(name: str) -> None:
    text = (STATIC / name).read_text("utf-8")

    assert {"http://www.w3.org/2000/svg"} >= set(
        re.findall(r"https?://[^\s\"'`$:]+\.[^\s\"'`$]+", text)
    )


async def test_the_overview_needs_the_key_and_the_page_does_not() -> None:
    async with running_emulator(api_key="canary") as emulator:
        refused, _, _ = await get(emulator.url + "/overview")
        let_in, _, _ = await get(emulator.url + "/overview", Authorization="Bearer canary")
        page, _, _ = await get(emulator.url)

    assert (401, 200, 200) == (refused, let_in, page)


async def test_the_overview_has_workers_counts_and_the_newest_jobs_first() -> None:
    async with (
        running_emulator(limits=FAST) as emulator,
        client_session(emulator) as client,
        hand_worker(emulator) as worker,
    ):
        first = await client.run(input={"api": {"method": "POST", "endpoint": "/generate"}})
        second = await client.run(input={"openai_route": "/v1/models"})
        await worker.take()
        seen = await overview(emulator.url)

    assert "local" == seen["endpoint"]
    assert [{"id": "hand", "state": "running", "jobs": 1}] == seen["workers"]
    assert (1, 1) == (seen["jobs"]["inQueue"], seen["jobs"]["inProgress"])
    names = [(job["id"], job["name"], job["status"]) for job in seen["recent"]]
    expected = [(second, "/v1/models", "IN_QUEUE"), (first, "/generate", "IN_PROGRESS")]
    assert expected == names
    assert seen["recent"][0]["delayTime"] >= 0
    assert seen["recent"][1]["executionTime"] >= 0


async def test_only_the_last_jobs_are_listed_and_nothing_of_what_they_say() -> None:
    async with running_emulator(limits=FAST) as emulator, client_session(emulator) as client:
        for _ in range(SHOWN_JOBS + 3):
            await client.run(input={"api": "canary", "openai_route": ["canary"]})
        _, _, text = await get(emulator.url + "/overview")

    assert SHOWN_JOBS == text.count('"name": ""')
    assert "canary" not in text
