"""The page at / in headless Chromium, where nothing but the gateway can be reached."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, Route, async_playwright, expect
from scripted_gateway import Gateway

from scripts.browser import find_browser


@pytest_asyncio.fixture(scope="module")
async def browser() -> AsyncIterator[Browser]:
    """Run the system's browser."""
    path = find_browser()
    if not path:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(
            "no Chromium on this machine: `make browser` installs one"
        )
    async with async_playwright() as playwright, await playwright.chromium.launch(executable_path=path) as browser:
        yield browser


@asynccontextmanager
async def open_page(browser: Browser, gateway: Gateway) -> AsyncIterator[Page]:
    """Open a gateway's page; an error in its console fails the test, and so does what it asks of anybody else."""
    context = await browser.new_context(permissions=["clipboard-read", "clipboard-write"])
    problems: list[str] = []

    async def route(route: Route) -> None:
        if not route.request.url.startswith((gateway.url, "data:")):
            problems.append(f"asked for {route.request.url}")
            await route.abort()
        else:
            await route.continue_()

    await context.route("**/*", route)
    page = await context.new_page()
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: problems.append(str(error)))
    await page.goto(gateway.url)
    await expect(page.locator("#model")).to_have_text("tiny, on")
    yield page
    await context.close()
    assert [problem for problem in problems if "503" not in problem] == []


async def ask(page: Page, text: str = "hi") -> None:
    """Send a message by the keyboard alone, which is where the page puts it."""
    await page.keyboard.type(text)
    await page.keyboard.press("Enter")
