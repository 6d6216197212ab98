"""Unmodified clients against the emulator: the runpod package, the npm package, curl."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import runpod

from emulator.server import Emulator, running_emulator
from tests.emulator.helpers import FAST, HandWorker, hand_worker, serving

NPM_PACKAGE = "runpod-sdk@1.1.2"
KEY = "canary-key"

# Everything that the npm package offers; it prints one JSON object as its last line.
NODE_SCRIPT = """
const [sdk, baseUrl, key] = process.argv.slice(2);
const runpod = (await import(sdk)).default(key, { baseUrl });
const endpoint = runpod.endpoint("local");
const seen = {};
seen.runSync = await endpoint.runSync({ input: { text: "hi" } });
const { id } = await endpoint.run({ input: { text: "hi", stream: true } });
seen.stream = [];
for await (const part of endpoint.stream(id)) seen.stream.push(part);
seen.status = await endpoint.status(id);
const slow = await endpoint.run({ input: { wait: true } });
seen.cancel = await endpoint.cancel(slow.id);
seen.cancelled = await endpoint.statusSync(slow.id);
seen.health = await endpoint.health();
seen.purge = await endpoint.purgeQueue();
console.log("\\n" + JSON.stringify(seen));
"""


async def work(worker: HandWorker, job: dict[str, Any]) -> None:
    """Answer a job with its input, in two streamed parts if asked to; leave it open if asked to."""
    if job["input"].get("wait"):
        return
    if job["input"].get("stream"):
        for number in (1, 2):
            await worker.stream(job["id"], {"part": number})
    await worker.done(job["id"], output=job["input"])


@asynccontextmanager
async def served() -> AsyncIterator[Emulator]:
    """Run an emulator that asks for a key, with a worker behind it."""
    async with (
        running_emulator(api_key=KEY, limits=FAST) as emulator,
        hand_worker(emulator) as worker,
        serving(worker, work),
    ):
        yield emulator


@pytest.fixture
def point_sdk(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Point the runpod package at an emulator."""
    return lambda emulator: monkeypatch.setattr(runpod, "endpoint_url_base", emulator.url + "/v2")


def use_endpoint(endpoint: runpod.Endpoint) -> dict[str, Any]:
    """Do everything that the package's Endpoint offers."""
    seen: dict[str, Any] = {"run_sync": endpoint.run_sync({"text": "hi"}, timeout=10)}
    job = endpoint.run({"text": "hi", "stream": True})
    seen["stream"] = list(job.stream())
    seen["status"] = job.status()
    seen["output"] = job.output(timeout=10)
    seen["cancel"] = endpoint.run({"wait": True}).cancel()["status"]
    seen["health"] = endpoint.health()["jobs"]["completed"]
    seen["purge"] = endpoint.purge_queue()
    return seen


async def test_the_runpod_package_works(point_sdk: Any) -> None:
    async with served() as emulator:
        point_sdk(emulator)
        endpoint = runpod.Endpoint("local", api_key=KEY)
        seen = await asyncio.to_thread(use_endpoint, endpoint)
        await asyncio.to_thread(endpoint.rp_client.rp_session.close)
    assert {
        "run_sync": {"text": "hi"},
        "stream": [{"part": 1}, {"part": 2}],
        "status": "COMPLETED",
        "output": {"text": "hi", "stream": True},
        "cancel": "CANCELLED",
        "health": 2,
        "purge": {"removed": 0, "status": "completed"},
    } == seen


async def test_the_runpod_package_sees_a_wrong_key(point_sdk: Any) -> None:
    async with served() as emulator:
        point_sdk(emulator)
        endpoint = runpod.Endpoint("local", api_key="wrong")
        with pytest.raises(RuntimeError, match="401"):
            await asyncio.to_thread(endpoint.health)
        endpoint.rp_client.rp_session.close()


async def test_the_runpod_packages_asyncio_endpoint_works(point_sdk: Any) -> None:
    async with served() as emulator, aiohttp.ClientSession() as session:
        point_sdk(emulator)
        endpoint = runpod.AsyncioEndpoint("local", session, api_key=KEY)
        job = await endpoint.run({"text": "hi", "stream": True})
        assert [{"part": 1}, {"part": 2}] == [part async for part in job.stream()]
        assert {"text": "hi", "stream": True} == await job.output(timeout=10)
        waiting = await endpoint.run({"wait": True})
        assert "CANCELLED" == (await waiting.cancel())["status"]
        assert 1 == (await endpoint.health())["jobs"]["completed"]
        assert {"removed": 0, "status": "completed"} == await endpoint.purge_queue()


async def test_curl_works() -> None:
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("curl is not installed")
    async with served() as emulator:
        process = await asyncio.create_subprocess_exec(
            *[curl, "--silent", "--max-time", "20", f"{emulator.base}/runsync"],
            *["-H", f"Authorization: Bearer {KEY}", "-H", "Content-Type: application/json"],
            *["-d", '{"input": {"text": "hi"}}'],
            stdout=subprocess.PIPE,
        )
        printed, _ = await process.communicate()
    assert {"text": "hi"} == json.loads(printed)["output"]


@pytest.fixture(scope="session")
def npm_sdk() -> Path:
    """Install the npm package once, outside the tree; its main module."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        pytest.skip("node and npm are not installed")
    folder = Path(tempfile.gettempdir()) / NPM_PACKAGE
    module = folder / "node_modules" / "runpod-sdk" / "dist" / "src" / "index.js"
    if not module.exists():
        folder.mkdir(exist_ok=True)
        command = [npm, "install", "--no-audit", "--no-fund", "--prefix", str(folder), NPM_PACKAGE]
        result = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
        if result.returncode:
            pytest.skip(f"npm can't install {NPM_PACKAGE}: {result.stderr[-200:]}")
    return module


async def test_the_npm_package_works(npm_sdk: Path, tmp_path: Path) -> None:
    script = tmp_path / "client.mjs"
    script.write_text(NODE_SCRIPT)
    async with served() as emulator:
        process = await asyncio.create_subprocess_exec(
            *["node", str(script), str(npm_sdk), f"{emulator.url}/v2", KEY],
            stdout=subprocess.PIPE,
        )
        printed, _ = await asyncio.wait_for(process.communicate(), 40)
    seen = json.loads(printed.splitlines()[-1])
    assert ({"text": "hi"}, True) == (seen["runSync"]["output"], seen["runSync"]["succeeded"])
    assert [{"output": {"part": 1}}, {"output": {"part": 2}}] == seen["stream"]
    assert ("COMPLETED", True) == (seen["status"]["status"], seen["status"]["completed"])
    assert ("CANCELLED", "CANCELLED") == (seen["cancel"]["status"], seen["cancelled"]["status"])
    assert 2 == seen["health"]["jobs"]["completed"]
    assert {"removed": 0, "status": "completed"} == seen["purge"]
