"""A browser, and the page of an emulator with a fake worker."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from emulator.server import Emulator, running_emulator
from tests.emulator.helpers import FAST
from tests.fake_worker import FakeWorker, fake_worker

if TYPE_CHECKING:
    from playwright.async_api import Browser, ConsoleMessage, Page

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium")
# Nothing but the page: no first-run windows, and no requests of the browser's own.
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    playwright = pytest.importorskip("playwright.async_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("there is no chromium; on Debian: apt-get install chromium, or set CHROMIUM")
    async with playwright.async_playwright() as driver:
        browser = await driver.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield browser
        await browser.close()


@dataclass(frozen=True)
class Shown:
    """An open page; faults: what the browser's console complained of."""

    page: Page
    emulator: Emulator
    worker: FakeWorker
    faults: list[str] = field(default_factory=list)

    async def submit(self, prompt: str, **payload: Any) -> None:
        """Submit a job for /generate."""
        await self.page.fill("#job", generate_job(prompt, **payload))
        await self.page.click("#submit")

    async def text(self, selector: str, wanted: str) -> None:
        """Wait until an element has a text in it."""
        await self.page.locator(selector).filter(has_text=wanted).wait_for()

    @property
    def statuses(self) -> list[str]:
        """The statuses of all jobs."""
        return [job.status for job in self.emulator.jobs.values()]


def generate_job(prompt: str, **payload: Any) -> str:
    """A job as JSON."""
    api = {"method": "POST", "endpoint": "/generate"}
    return json.dumps({"input": {"api": api, "payload": {"prompt": prompt, **payload}}})


@asynccontextmanager
async def shown(
    browser: Browser, *, api_key: str | None = None, pause: float = 0.0, **options: Any
) -> AsyncIterator[Shown]:
    """Open the page; pause: seconds between the worker's words; options: the browser's."""
    async with (
        running_emulator(limits=FAST, api_key=api_key) as emulator,
        fake_worker(emulator, pause=pause) as worker,
    ):
        context = await browser.new_context(**options)
        context.set_default_timeout(15_000)
        page = await context.new_page()
        view = Shown(page, emulator, worker)

        def listen(message: ConsoleMessage) -> None:
            if message.type in ("error", "warning"):
                view.faults.append(message.text)

        page.on("console", listen)
        page.on("pageerror", lambda error: view.faults.append(str(error)))
        try:
            await page.goto(emulator.url)
            yield view
        finally:
            await context.close()


@pytest_asyncio.fixture(loop_scope="module")
async def view(browser: Browser) -> AsyncIterator[Shown]:
    async with shown(browser) as opened:
        yield opened
        assert [] == opened.faults
