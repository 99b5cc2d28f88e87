"""The page at / in headless Chromium, and /docs: both with nothing from elsewhere."""

from collections.abc import AsyncIterator

import browser_page
import pytest
import pytest_asyncio
import scripted_gateway
from browser_page import ask, open_page
from playwright.async_api import Browser, Page, expect
from pydantic import SecretStr
from scripted_gateway import ROUND_TIME, TEXT, Gateway, ScriptedDecoder, serve

from gateway.clients.errors import TargetUnavailableError
from gateway.rounds.round import Round
from gateway.speculation.decision import Reason
from gateway.web.model_routes import INEXACT

# Assigned, for pytest looks for fixtures among a module's names.
tiny = scripted_gateway.tiny
scripted_server = scripted_gateway.scripted_server
scripted = scripted_gateway.scripted
browser = browser_page.browser

SIZES = {"narrow": (360, 740), "wide": (1280, 900)}


@pytest_asyncio.fixture
async def page(browser: Browser, scripted: Gateway) -> AsyncIterator[Page]:
    """Open the page."""
    async with open_page(browser, scripted) as page:
        yield page


async def test_where_tokens_come_from(page: Page, scripted: Gateway) -> None:
    """Claim: each token is of its source's kind, and the counts, figures and rounds are those of the reply."""
    text = " ".join([TEXT] * 3)
    ids = scripted.tokenizer.encode(text)
    assert len(ids) >= 9
    script = [
        Round(ids[:2], 3, 1, None, ROUND_TIME, proposer="lookup", reason=Reason.PAYS, num_cached=4),
        Round(ids[2:4], 1, 1, None, ROUND_TIME, proposer="prediction", reason=Reason.PAYS),
        Round(ids[4:5], 0, 0, None, ROUND_TIME, reason=Reason.DOES_NOT_PAY),
        Round([*ids[5:], 2], len(ids) - 4, len(ids) - 4, "stop", ROUND_TIME, proposer="model"),
    ]
    scripted.decoder.script, scripted.decoder.pause_seconds = script, 0.02
    await ask(page)
    reply = page.get_by_role("log").locator("article").last.locator("p")
    await expect(reply).to_have_text(text)
    kinds = await reply.locator("span").evaluate_all("spans => spans.map(span => span.className)")
    expected = ["lookup", "recovered", "prediction", "bonus", "plain", *["model"] * (len(ids) - 5)]
    assert kinds == expected  # the stop token has no text
    await expect(page.locator("#verdict")).to_contain_text("The two texts are equal.")
    counts = await page.locator("#sources tbody td").all_inner_texts()
    assert counts == [str(len(ids) - 4), "1", "1", "0", "0", "1", "1", "1"]
    figures = await page.locator("#runs td").all_inner_texts()
    rate = f"{round(100 * (len(ids) - 2) / len(ids))} %"
    assert figures[2:8] == [str(len(ids) + 1)] * 2 + ["4"] * 2 + [rate] * 2
    assert float(figures[0]) > 0
    prompt = str(len(scripted.decoder.calls[0][0]))
    queued = f"{round(4 * ROUND_TIME.queue * 1000)} ms"
    assert (figures[12:16], figures[18:20]) == ([prompt] * 2 + ["4"] * 2, [queued] * 2)
    reasons = await page.locator("#reasons tbody tr").all_inner_texts()
    assert [reason.split("\t") for reason in reasons] == [
        ["speculation is expected to be faster", "2"],
        ["none: plain decoding is expected to be faster", "1"],
        ["\u2013", "1"],  # the round that says none
    ]
    tracks = page.locator(".track")
    assert await tracks.first.locator("> span").count() == 4
    assert await tracks.first.locator(".rejected").count() == 2
    assert "4 rounds in" in (await tracks.first.get_attribute("aria-label") or "")
    assert await page.locator("#each tbody tr").count() == 4
    on, off = scripted.decoder.calls
    assert (on[1].seed, on[3], off[3]) == (off[1].seed, 4, 0)  # the same request, with k and with none


async def test_options_reach_the_request(page: Page, scripted: Gateway) -> None:
    """Claim: what is chosen is asked for, and the next message goes on with the chat."""
    await page.get_by_text("Options").click()
    for label, value in (
        ("Longest", "30"),
        ("Temperature", "0.5"),
        ("Seed", "7"),
        ("k,", "6"),
        ("Prediction", "the horse"),
    ):
        await page.get_by_label(label).fill(value)
    await page.get_by_label("Then the same").uncheck()
    await page.get_by_label("Message").focus()
    for number in (1, 2):
        await ask(page)
        await expect(page.get_by_role("status")).to_contain_text("tokens/s")
        assert len(scripted.decoder.calls) == number
    _, params, max_tokens, k = scripted.decoder.calls[0]
    assert (params.temperature, params.seed, max_tokens, k) == (0.5, 7, 30, 6)
    assert scripted.decoder.lookups[0][1] == scripted.tokenizer.encode("the horse")
    first, second = (scripted.tokenizer.decode(call[0]) for call in scripted.decoder.calls)
    assert TEXT not in first
    assert TEXT in second


async def test_escape_stops(page: Page, scripted: Gateway) -> None:
    """Claim: Escape ends the reply, at the gateway too; what there is of it stays, and the focus is on the message."""
    [first, *_] = scripted.tokenizer.encode(TEXT)
    scripted.decoder.script = [Round([first], 0, 0, None, ROUND_TIME)] * 1000
    scripted.decoder.pause_seconds = 0.01
    await ask(page)
    await expect(page.locator("#each tbody tr")).not_to_have_count(0)
    await page.keyboard.press("Escape")
    await expect(page.get_by_role("status")).to_have_text("Stopped.")
    await scripted.until_idle()
    await expect(page.get_by_role("log").locator("article")).to_have_count(2)
    await expect(page.get_by_label("Message")).to_be_focused()


@pytest.mark.parametrize("num_rounds", [0, 1])
async def test_errors_are_told(page: Page, scripted: Gateway, num_rounds: int) -> None:
    """Claim: an error, before the first token or in the stream, is announced; a message that got no reply is kept."""
    good = list(scripted.decoder.script)
    scripted.decoder.script = [*good[:num_rounds], TargetUnavailableError("the target is gone")]
    await ask(page)
    await expect(page.get_by_role("alert")).to_contain_text("the target is gone")
    await expect(page.get_by_label("Message")).to_have_value("" if num_rounds else "hi")


@pytest.mark.parametrize("size", SIZES)
async def test_light_and_dark_narrow_and_wide(page: Page, scripted: Gateway, size: str) -> None:
    """Claim: the colours follow the system's, and nothing is wider than the window."""
    width, height = SIZES[size]
    await page.set_viewport_size({"width": width, "height": height})
    scripted.play("horse" * 60)
    await ask(page)
    await expect(page.locator("#verdict")).to_contain_text("equal")
    grounds = []
    for scheme in ("light", "dark"):
        await page.emulate_media(color_scheme=scheme)
        grounds.append(await page.evaluate("getComputedStyle(document.body).backgroundColor"))
        assert await page.evaluate("document.documentElement.scrollWidth") <= width
    assert len(set(grounds)) == 2


async def test_an_inexact_target(browser: Browser, scripted: Gateway) -> None:
    """Claim: the page says so where rows are not exact, and nothing where they are."""
    inexact = ScriptedDecoder()
    inexact.target.row_exact = False
    async with serve(scripted.tokenizer, inexact) as gateway:
        for url, shown in ((gateway.url, True), (scripted.url, False)):
            page = await browser.new_page()
            await page.goto(url)
            await expect(page.locator("#model")).to_have_text("tiny, on")
            await expect(page.get_by_text(INEXACT)).to_be_visible(visible=shown)
            await page.close()


async def test_docs(page: Page, scripted: Gateway) -> None:
    """Claim: /docs lists the API without a CDN."""
    await page.goto(f"{scripted.url}/docs")
    await expect(page.get_by_text("/v1/chat/completions")).to_be_visible()


async def test_a_key(browser: Browser, scripted: Gateway) -> None:
    """Claim: where a key is wanted the page asks for it, again if it is wrong, and keeps it as long as its tab."""
    async with serve(scripted.tokenizer, ScriptedDecoder(), api_key=SecretStr("right")) as gateway:
        gateway.play(TEXT)
        context = await browser.new_context()
        page = await context.new_page()
        await page.goto(gateway.url)
        key = page.get_by_label("API key")
        for guess in ("wrong", "right"):
            await expect(page.get_by_role("alert")).to_contain_text("API key")
            await key.fill(guess)
            await key.press("Enter")
        await expect(page.locator("#model")).to_have_text("tiny, on")
        await expect(key).to_be_hidden()
        await page.reload()
        await expect(page.locator("#model")).to_have_text("tiny, on")
        await ask(page)
        await expect(page.locator("#verdict")).to_contain_text("The two texts are equal.")
        assert await page.evaluate("localStorage.length") == 0
        await context.close()
