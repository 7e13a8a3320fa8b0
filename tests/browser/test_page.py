"""The page at `/` on a real stack: start jobs, follow them, reload, lose the WebSocket, read files, download."""

from __future__ import annotations

import re
import secrets
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import BrowserContext, Locator, Page, expect

from tests.support.stack import LiveStack

pytestmark = [pytest.mark.browser, pytest.mark.acceptance, pytest.mark.asyncio(loop_scope="session")]

PATIENCE_MS = 20_000
CSV = 'Region,Sales\n"North, East",120.50\nSouth,98\n'
MARKDOWN = "# Quarterly review\n\n## Highlights\n\nSales are **up**.\n\n## Outlook\n\nSteady.\n"


Enter = Callable[..., Awaitable[Page]]


@pytest_asyncio.fixture(loop_scope="session")
async def enter(page: Page, live_stack: LiveStack, request: pytest.FixtureRequest) -> Enter:
    """Open the page, signed in as a subject that no other test has."""

    async def enter(sub: str = "") -> Page:
        subject = sub or f"{request.node.name[:40]}-{secrets.token_hex(4)}"
        await page.goto(f"{live_stack.url}/#token={live_stack.token(subject)}")
        await expect(page.get_by_role("navigation", name="Your jobs")).to_be_visible()
        return page

    return enter


async def _start_steps(page: Page, **values: int) -> None:
    await page.get_by_role("link", name="New job").click()
    await page.get_by_role("tab", name="Demo").click()
    form = page.get_by_role("form", name="New demo job")
    for name, value in {"output_every": "", "fail_at": "", "fail_times": "", **values}.items():
        await form.locator(f'[name="input.{name}"]').fill(str(value))
    await form.get_by_role("button", name="Start the steps").click()


def _bar(page: Page) -> Locator:
    return page.get_by_role("main").get_by_role("progressbar", name="Progress")


async def _until_state(page: Page, word: str) -> None:
    await expect(page.get_by_role("main").locator(".pill")).to_have_text(word, timeout=PATIENCE_MS)


async def _badge(page: Page, word: str) -> None:
    await expect(page.locator(".badge")).to_have_attribute("data-state", word, timeout=PATIENCE_MS)


async def test_the_token_is_taken_from_the_address_and_removed_from_it(enter: Enter) -> None:
    """It is kept for the session, so that a reload needs none."""
    page = await enter()
    assert "token" not in page.url
    await page.reload()
    await expect(page.get_by_role("navigation", name="Your jobs")).to_be_visible()
    assert await page.evaluate("Object.values(localStorage).join().includes('eyJ')") is False


async def test_a_job_is_followed_over_a_reload_to_its_end(enter: Enter) -> None:
    """Bar, log and output go on after a reload in the middle, and the result is shown."""
    page = await enter()
    await _start_steps(page, steps=30, delay_ms=120, output_every=10)
    await _until_state(page, "Running")
    await _badge(page, "live")
    await expect(page.get_by_label("Output", exact=True)).to_have_text("step 10\n", timeout=PATIENCE_MS)
    await page.reload()
    await expect(page.get_by_label("Output", exact=True)).to_contain_text("step 10\n")
    await _until_state(page, "Completed")
    await expect(_bar(page)).to_have_attribute("aria-valuenow", "100")
    await expect(page.get_by_label("Output", exact=True)).to_have_text("step 10\nstep 20\nstep 30\n")
    await expect(page.get_by_label("Result", exact=True)).to_contain_text('"steps": 30')
    lines = await page.get_by_role("log").locator("li span").all_text_contents()
    assert lines == ["Queued in default", "Started", "Completed"]


async def test_jobs_that_are_alike_can_be_told_apart(enter: Enter, live_stack: LiveStack) -> None:
    """Each has the end of its id in the list."""
    page = await enter("twins")
    headers = {"Authorization": f"Bearer {live_stack.token('twins')}"}
    form = {"type": "report.render", "input": {"title": "Twin", "sections": [{"heading": "H"}]}}
    ids = []
    for _ in range(2):
        answer = await page.request.post(f"{live_stack.url}/api/jobs", headers=headers, data=form)
        ids.append((await answer.json())["id"])
    await page.reload()
    jobs = page.get_by_role("navigation", name="Your jobs").get_by_role("listitem")
    await expect(jobs.locator("code")).to_have_text([each.split("s")[0][-6:] for each in reversed(ids)])
    await expect(jobs.first.get_by_text("report.render")).to_have_count(1)


async def test_the_list_shows_every_job_live_after_a_reload(enter: Enter) -> None:
    """Open jobs are picked up again; their bars move without being opened."""
    page = await enter()
    for _ in range(2):
        await _start_steps(page, steps=40, delay_ms=100)
        await _until_state(page, "Running")
    await page.evaluate("location.hash = '#/new'")
    await page.reload()
    jobs = page.get_by_role("navigation", name="Your jobs").get_by_role("listitem")
    await expect(jobs).to_have_count(2)
    await expect(jobs.first.get_by_role("progressbar")).to_have_attribute(
        "aria-valuenow", re.compile(r"^[1-9]")
    )
    await expect(jobs.locator(".pill")).to_have_text(["Completed", "Completed"], timeout=PATIENCE_MS)


async def test_without_websockets_the_page_finishes_the_job_by_polling(enter: Enter, page: Page) -> None:
    """The badge says so, and nothing is missing."""
    await page.route_web_socket(re.compile("/socket.io/"), lambda socket: socket.close())
    await enter()
    await _badge(page, "polling")
    await _start_steps(page, steps=20, delay_ms=50, output_every=5)
    await _until_state(page, "Completed")
    await expect(page.get_by_label("Output", exact=True)).to_have_text("step 5\nstep 10\nstep 15\nstep 20\n")


async def test_files_become_a_report_that_can_be_downloaded(enter: Enter, tmp_path: Path) -> None:
    """A CSV becomes a table, a Markdown file its title and sections; the download carries the token."""
    page = await enter()
    (tmp_path / "sales.csv").write_text(CSV)
    (tmp_path / "review.md").write_text(MARKDOWN)
    await page.get_by_role("link", name="New job").click()
    form = page.get_by_role("form", name="New report")
    await form.locator("input[type=file]").set_input_files([tmp_path / "sales.csv", tmp_path / "review.md"])
    await expect(form.locator("fieldset")).to_have_count(3)
    await expect(form.get_by_label("Title")).to_have_value("Quarterly review")
    headings = form.get_by_label("Heading")
    assert [await each.input_value() for each in await headings.all()] == ["Sales", "Highlights", "Outlook"]
    await expect(form.get_by_role("cell", name="North, East")).to_be_visible()
    await expect(form.locator(".preview td.number")).to_have_text(["120.50", "98"])
    await form.get_by_role("radio", name="HTML").check()
    await form.get_by_role("button", name="Render the report").click()
    await _until_state(page, "Completed")
    async with page.expect_download() as waiting:
        await page.get_by_role("button", name="Download").click()
    download = await waiting.value
    assert download.suggested_filename.endswith(".html")
    await download.save_as(tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    for part in (
        "Quarterly review",
        "North, East",
        "120.50<",
        ">98<",
        "Sales are <strong>up</strong>",
        "Outlook",
    ):
        assert part in text


async def test_a_file_that_cannot_be_read_says_why(enter: Enter, tmp_path: Path) -> None:
    """The line is named, and nothing is added to the report."""
    page = await enter()
    (tmp_path / "bad.csv").write_text("a,b\n1,2,3\n")
    (tmp_path / "bytes.md").write_bytes(b"\xff\xfe\x00")
    await page.get_by_role("link", name="New job").click()
    form = page.get_by_role("form", name="New report")
    await form.locator("input[type=file]").set_input_files([tmp_path / "bad.csv", tmp_path / "bytes.md"])
    await expect(form.locator(".readings li")).to_have_text(
        [re.compile("Line 2: 3 cells, but the header names 2"), re.compile("not UTF-8")]
    )
    await expect(form.locator("fieldset")).to_have_count(1)


async def test_what_is_wrong_is_shown_at_the_field_it_names(enter: Enter) -> None:
    """Faults come from the server's problem document; the first field gets the focus."""
    page = await enter()
    await _start_steps(page, steps=0, delay_ms=-1)
    form = page.get_by_role("form", name="New demo job")
    await expect(form.get_by_role("alert")).to_have_text("2 fields need another look.")
    steps = form.get_by_label("Steps", exact=True)
    await expect(steps).to_have_attribute("aria-invalid", "true")
    await expect(steps).to_be_focused()
    await expect(steps).to_have_accessible_description(re.compile("greater than or equal to 1"))
    await form.locator('[name="input.steps"]').fill("1")
    await form.locator('[name="input.delay_ms"]').fill("0")
    await form.get_by_role("button", name="Start the steps").click()
    await _until_state(page, "Completed")


async def test_a_report_without_a_heading_is_refused_at_that_heading(enter: Enter) -> None:
    """Paths into lists lead to the right section."""
    page = await enter()
    await page.get_by_role("link", name="New job").click()
    form = page.get_by_role("form", name="New report")
    await form.get_by_label("Title").fill("T")
    await form.get_by_role("button", name="Add a section").click()
    await form.get_by_label("Heading").first.fill("Filled")
    await form.get_by_role("button", name="Render the report").click()
    await expect(form.get_by_label("Heading").nth(1)).to_be_focused()
    await expect(form.get_by_label("Heading").nth(1)).to_have_attribute("aria-invalid", "true")
    await expect(form.get_by_label("Heading").first).not_to_have_attribute("aria-invalid", "true")


async def test_a_running_job_can_be_cancelled_and_run_again(enter: Enter) -> None:
    """Cancel ends it, and the new job has its own page."""
    page = await enter()
    await _start_steps(page, steps=200, delay_ms=100)
    await _until_state(page, "Running")
    first = page.url
    await page.get_by_role("button", name="Cancel").click()
    await _until_state(page, "Cancelled")
    await page.get_by_role("button", name="Run again").click()
    await page.wait_for_url(lambda url: url != first)
    await _until_state(page, "Running")
    await page.get_by_role("button", name="Cancel").click()
    await _until_state(page, "Cancelled")


async def test_a_flow_shows_its_steps(enter: Enter, live_stack: LiveStack) -> None:
    """Those that wait, those that run and those that have ended; each leads to its job, and that one back."""
    page = await enter("flows")
    play = {"type": "demo.steps", "input": {"steps": 10, "delay_ms": 100}}
    body = {
        "type": "flow",
        "input": {"steps": [{"name": "one", **play}, {"name": "two", "after": ["one"], **play}]},
    }
    headers = {"Authorization": f"Bearer {live_stack.token('flows')}"}
    answer = await page.request.post(f"{live_stack.url}/api/jobs", headers=headers, data=body)
    flow_id = (await answer.json())["id"]
    await page.evaluate(f"location.hash = '#/jobs/{flow_id}'")
    steps = page.get_by_role("region", name="Steps")
    await expect(steps.locator(".pill")).to_have_text(["Running", "Waiting"], timeout=PATIENCE_MS)
    await expect(steps.locator(".pill")).to_have_text(["Completed", "Running"], timeout=PATIENCE_MS)
    await expect(steps.locator(".pill")).to_have_text(["Completed", "Completed"], timeout=PATIENCE_MS)
    await expect(page.get_by_role("main").get_by_text("2 of 2")).to_be_visible(timeout=PATIENCE_MS)
    await steps.get_by_role("link", name="two").click()
    await page.get_by_text("Details").click()
    await page.get_by_role("link", name=flow_id).last.click()
    await expect(steps).to_be_visible()


async def test_a_failed_job_says_why(enter: Enter) -> None:
    """Each attempt is in the log and apart in the output, and a bar that stopped is no sign of success."""
    page = await enter()
    await _start_steps(page, steps=3, delay_ms=0, output_every=1, fail_at=2, fail_times=1)
    await _until_state(page, "Completed")
    await expect(page.get_by_label("Output", exact=True)).to_have_text(
        "step 1\nattempt 2step 1\nstep 2\nstep 3\n"
    )
    log = page.get_by_role("log")
    await expect(log).to_contain_text("Attempt 1 did not succeed")
    await expect(log).to_contain_text("Started, attempt 2")
    await _start_steps(page, steps=3, delay_ms=0, fail_at=3)
    await _until_state(page, "Failed")
    await expect(page.locator(".progress-head")).to_have_text(
        re.compile(r"^Failed\s*It had reported 66 %\.$")
    )


async def test_what_the_server_tells_is_shown_as_text(enter: Enter) -> None:
    """Markup in a title stays text, everywhere it is shown."""
    page = await enter()
    title = '<img src=x onerror="document.title=1"> & "quotes"'
    await page.get_by_role("link", name="New job").click()
    form = page.get_by_role("form", name="New report")
    await form.get_by_label("Title").fill(title)
    await form.get_by_label("Heading").fill("H")
    await form.get_by_role("button", name="Render the report").click()
    await expect(page.get_by_role("heading", name=title, exact=True)).to_be_visible()
    await _until_state(page, "Completed")
    assert await page.title() == "Tidings"
    assert await page.locator("main img").count() == 0


async def test_a_refused_token_leads_back_to_the_sign_in(page: Page, live_stack: LiveStack) -> None:
    """With a reason, and what was given still in the field; another token goes on, and signing out forgets it."""
    await page.goto(f"{live_stack.url}/#token=not.a.token")
    await expect(page.get_by_label("Access token")).to_be_visible(timeout=PATIENCE_MS)
    await expect(page.get_by_role("alert")).to_contain_text("token")
    await expect(page.get_by_label("Access token")).to_have_value("not.a.token")
    await page.get_by_label("Show it").check()
    await expect(page.get_by_label("Access token")).to_have_attribute("type", "text")
    await page.get_by_label("Access token").fill(live_stack.token("second-try"))
    await page.get_by_role("button", name="Continue").click()
    await _badge(page, "live")
    await page.get_by_role("button", name="Sign out").click()
    await expect(page.get_by_label("Access token")).to_have_value("")


async def test_an_unknown_job_is_said_to_be_unknown(enter: Enter, live_stack: LiveStack) -> None:
    """Also one of somebody else: the address alone tells nothing."""
    page = await enter()
    await _start_steps(page, steps=1, delay_ms=0)
    await _until_state(page, "Completed")
    address = page.url
    await page.goto("about:blank")
    await enter("somebody-else")
    await page.goto(address)
    await expect(page.get_by_role("heading", name="There is no such job")).to_be_visible()
    await expect(page.get_by_text("no such job")).to_have_count(1)


@pytest.mark.parametrize("width", [320, 390, 1280])
async def test_every_view_fits_the_screen_and_names_its_controls(
    enter: Enter, context: BrowserContext, width: int
) -> None:
    """Nothing is cut off sideways, and each control has a name for those who cannot see it."""
    page = await enter()
    await page.set_viewport_size({"width": width, "height": 800})
    await page.goto(f"{page.url.split('#')[0]}#/new")
    await expect(page.get_by_role("link", name="API")).to_be_visible()
    await expect(page.get_by_text("Signed in as")).to_be_visible()
    for tab in ("Report", "Demo", "Any type"):
        await page.get_by_role("tab", name=tab).click()
        await expect(page.get_by_role("tabpanel", name=tab).locator("form")).to_be_visible()
        assert await page.evaluate(_FAULTS_OF_LAYOUT) == []
    await page.get_by_role("tab", name="Demo").click()
    form = page.get_by_role("form", name="New demo job")
    await form.locator('[name="input.delay_ms"]').fill("0")
    await form.get_by_role("button", name="Start the steps").click()
    await _until_state(page, "Completed")
    assert await page.evaluate(_FAULTS_OF_LAYOUT) == []


async def test_the_forms_are_reached_by_keyboard_alone(enter: Enter) -> None:
    """Tabs take the arrows, and Enter submits."""
    page = await enter()
    await page.get_by_role("link", name="New job").press("Enter")
    await page.get_by_role("tab", name="Report").focus()
    await page.keyboard.press("ArrowRight")
    await expect(page.get_by_role("tab", name="Demo")).to_be_focused()
    await page.keyboard.press("Tab")
    await expect(page.get_by_label("Steps", exact=True)).to_be_focused()
    await page.keyboard.press("ControlOrMeta+a")
    await page.keyboard.type("2")
    await page.keyboard.press("Enter")
    await _until_state(page, "Completed")


async def test_the_api_documentation_shows_every_operation_and_makes_calls(
    page: Page, live_stack: LiveStack, tmp_path: Path
) -> None:
    """The document is the server's own; a call from the page is a real one."""
    document: dict[str, Any] = await (await page.request.get(f"{live_stack.url}/api/openapi.json")).json()
    operations = [
        operation["operationId"] for item in document["paths"].values() for operation in item.values()
    ]
    await page.goto(f"{live_stack.url}/api/docs#token={live_stack.token('reader')}")
    for name in operations:
        await expect(page.locator(f"main [id='{name}']")).to_be_visible()
    aliases = [path for path in document["paths"] if path.startswith("/api/health")]
    await expect(page.locator("main article.operation")).to_have_count(len(operations) - len(aliases))
    await expect(page.locator("#readLiveness")).to_contain_text("Also at /api/health/live")
    widths = await page.locator("nav .method").evaluate_all("all => all.map((each) => each.offsetWidth)")
    assert len(set(widths)) == 1
    await expect(page.locator("[id='schema-Job']")).to_contain_text("position")
    submit = page.locator("article", has_text="/api/jobs").filter(has=page.locator(".method-post")).first
    await submit.get_by_role("button", name="Try it").click()
    await submit.get_by_label("Body (JSON)").fill('{"type": "demo.steps", "input": {"steps": 1}}')
    await submit.get_by_role("button", name="Send").click()
    await expect(submit.get_by_role("status")).to_contain_text("202")
    await expect(submit.get_by_label("Answer")).to_contain_text('"type": "demo.steps"')


_FAULTS_OF_LAYOUT = """() => {
  const faults = [];
  if (document.documentElement.scrollWidth > innerWidth) faults.push(`wide: ${document.documentElement.scrollWidth}`);
  for (const control of document.querySelectorAll("input, textarea, select, button, a")) {
    if (!control.checkVisibility() || control.closest(".visually-hidden")) continue;
    const named = control.labels?.length || control.textContent.trim() || control.getAttribute("aria-label");
    if (!named) faults.push(`nameless: ${control.outerHTML.slice(0, 120)}`);
    const { left, right } = control.getBoundingClientRect();
    if (right > innerWidth + 1 || (left < 0 && !control.classList.contains("skip"))) faults.push(`cut off: ${control.outerHTML.slice(0, 120)}`);
  }
  return faults;
}"""
