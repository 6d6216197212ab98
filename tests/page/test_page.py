"""The emulator's page in a real browser."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.emulator.helpers import eventually
from tests.fake_worker import TEXT, WORDS
from tests.page.conftest import Shown, shown

if TYPE_CHECKING:
    from playwright.async_api import Browser

pytestmark = pytest.mark.asyncio(loop_scope="module")

_OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


async def test_a_job_is_submitted_and_its_answer_shown(view: Shown) -> None:
    await view.submit("Hi")

    await view.text("#state", "COMPLETED")
    assert TEXT == await view.page.text_content("#text")
    assert '"status": "COMPLETED"' in (await view.page.text_content("#answer") or "")


async def test_the_text_streams_in(browser: Browser) -> None:
    async with shown(browser, pause=0.3) as view:
        await view.submit("Hi", stream=True)

        await view.text("#text", "Once upon")
        early = await view.page.text_content("#text") or ""
        await view.text("#state", "COMPLETED")

        assert len(early) < len(TEXT)
        assert TEXT.startswith(early)
        assert TEXT == await view.page.text_content("#text")


async def test_every_example_is_answered(view: Shown) -> None:
    names = await view.page.locator("#example option:not([hidden])").all_text_contents()

    for name in names:
        await view.page.select_option("#example", label=name)
        count = len(view.emulator.jobs)
        await view.page.click("#submit")
        await eventually(lambda count=count: len(view.emulator.jobs) == count + 1)  # type: ignore[misc] # a default binds the loop's value
        await view.text("#state", "COMPLETED")
        await view.page.locator("#text:not(:empty)").wait_for()

    assert ["COMPLETED"] * len(names) == view.statuses
    paths = {job_input["api"]["endpoint"] for job_input in view.worker.inputs}
    assert {"/generate", "/chat", "/model", "/token-count", "/stop-stream"} < paths


async def test_a_running_job_is_cancelled_with_the_button(view: Shown) -> None:
    await view.submit("slow", stream=True)
    await view.text("#text", "and so on")

    await view.page.click("#cancel")

    await view.text("#state", "CANCELLED")
    await eventually(lambda: list(view.emulator.jobs) == view.worker.stopped)
    assert await view.page.is_disabled("#cancel")


async def test_a_job_that_ends_before_its_first_text_says_so(view: Shown) -> None:
    await view.submit("hold")
    await view.text("#state", "IN_PROGRESS")

    await view.page.click("#cancel")

    await view.text("#text", "It ended before a text came.")


async def test_an_edited_job_is_no_example_any_more(view: Shown) -> None:
    await view.page.fill("#job", "{}")
    assert "a job of your own" == await view.page.input_value("#example")

    await view.page.select_option("#example", label="/model")
    assert "/model" in await view.page.input_value("#job")


async def test_the_documents_for_programs_are_linked(view: Shown) -> None:
    for name in ("openapi.json", "job.schema.json"):
        link = view.page.locator(f'footer a[href="{name}"]')
        response = await view.page.request.get(f"{view.emulator.url}/{name}")
        assert (1, 200) == (await link.count(), response.status)


async def test_the_keyboard_is_enough(view: Shown) -> None:
    await view.page.fill(
        "#job",
        '{"input": {"api": {"method": "POST", "endpoint": "/generate"},'
        ' "payload": {"prompt": "slow", "stream": true}}}',
    )

    await view.page.focus("#job")
    await view.page.keyboard.press("Control+Enter")
    await view.text("#text", "and so on")
    await view.page.keyboard.press("Escape")

    await view.text("#state", "CANCELLED")


async def test_a_failed_job_shows_its_sentence(view: Shown) -> None:
    await view.submit("fail")

    await view.text("#state", "FAILED")
    assert "the prompt is missing; send one" == await view.page.text_content("#text")


async def test_what_is_not_json_is_said_and_not_sent(view: Shown) -> None:
    await view.page.fill("#job", "{")
    await view.page.click("#submit")

    await view.text("#job-problem", "This is not JSON")
    assert {} == view.emulator.jobs


async def test_what_the_emulator_refuses_is_said(browser: Browser) -> None:
    async with shown(browser) as view:
        await view.page.fill("#job", '{"prompt": "Hi"}')
        await view.page.click("#submit")

        await view.text("#job-problem", 'send a JSON object with the key "input"')


async def test_many_jobs_queue_and_are_listed_with_their_times(view: Shown) -> None:
    await view.page.fill("#times", "60")
    await view.submit("hold")

    await view.text("#counts", "58 in queue")
    await view.text("#workers", "running 2 job(s)")
    view.worker.released.set()
    await view.text("#counts", "60 completed")

    rows = await view.page.locator("#jobs tr").all_text_contents()
    assert 50 == len(rows)
    assert all(re.search(r"/generateCOMPLETED[\d.]+ m?s[\d.]+ m?s$", row) for row in rows)
    assert 100 == await view.page.locator("#chart rect").count()


async def test_a_listed_job_is_shown_when_it_is_chosen(view: Shown) -> None:
    await view.submit("fail")
    await view.text("#state", "FAILED")
    await view.submit("Hi")
    await view.text("#state", "COMPLETED")

    await view.page.locator("#jobs tr").filter(has_text="FAILED").get_by_role("button").click()

    await view.text("#state", "FAILED")


async def test_the_focus_stays_while_the_list_is_refreshed(view: Shown) -> None:
    await view.submit("Hi")
    await view.page.locator("#jobs .link").focus()

    async with view.page.expect_response("**/overview"):
        pass
    async with view.page.expect_response("**/overview"):
        pass

    assert "link" == await view.page.evaluate("document.activeElement.className")


async def test_the_code_is_that_of_the_job_and_can_be_copied(browser: Browser) -> None:
    async with shown(browser, permissions=["clipboard-read", "clipboard-write"]) as view:
        await view.submit("It's", stream=False, seed=None)
        await view.text("#curl", "It")

        await view.page.locator('[data-from="curl"]').click()
        await view.text('[data-from="curl"]', "Copied")

        curl = await view.page.evaluate("navigator.clipboard.readText()")
        python = await view.page.text_content("#python") or ""
        assert f"{view.emulator.base}/runsync" in curl
        assert "It'\\''s" in curl
        assert '"stream": False' in python
        assert '"seed": None' in python
        compile(python, "snippet", "exec")


async def test_generated_html_is_shown_as_text(view: Shown) -> None:
    await view.submit("Hi")

    await view.text("#text", WORDS[8])
    assert 0 == await view.page.locator("#text b").count()


async def test_an_api_key_is_asked_for_and_never_put_into_the_code(browser: Browser) -> None:
    async with shown(browser, api_key="canary-key") as view:
        await view.page.locator("#key-form").wait_for()
        await view.page.fill("#key", "wrong")
        await view.page.keyboard.press("Enter")
        await view.page.locator("#key-form").wait_for()
        await view.page.fill("#key", "canary-key")
        await view.page.keyboard.press("Enter")
        await view.page.locator("#key-form").wait_for(state="hidden")

        await view.submit("Hi")

        await view.text("#state", "COMPLETED")
        assert "$RUNPOD_API_KEY" in (await view.page.text_content("#curl") or "")
        assert "canary-key" not in await view.page.content()


@pytest.mark.parametrize("width", [320, 480, 800, 1400])
async def test_no_width_needs_sideways_scrolling(browser: Browser, width: int) -> None:
    async with shown(browser, viewport={"width": width, "height": 800}) as view:
        await view.submit("Hi")
        await view.text("#state", "COMPLETED")

        assert 0 == await view.page.evaluate(_OVERFLOW)


async def test_a_stopped_emulator_is_told_of(browser: Browser) -> None:
    async with shown(browser) as view:
        await view.text("#workers", "fake-worker")
        await view.page.context.set_offline(True)

        await view.text("#connection", "does not answer")
