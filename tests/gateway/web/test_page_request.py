"""What the page at / can ask for beside a message: a system prompt, a tool, a schema; and the same from the shell."""

import json
import re
import shlex
from collections.abc import AsyncIterator
from pathlib import Path

import browser_page
import httpx
import pytest
import pytest_asyncio
import tiny_tokenizer
from browser_page import ask, open_page
from playwright.async_api import Browser, Page, expect
from pydantic import SecretStr
from scripted_gateway import Gateway, ScriptedDecoder, serve

from gateway.speculation.decision import Reason
from gateway.text.tokenizer import ChatTokenizer
from gateway.web.page_routes import FOLDER

browser = browser_page.browser  # assigned, for pytest looks for fixtures among a module's names

TEMPLATE = (
    "{% for tool in tools or [] %}{{ tool.function.name }}{% endfor %}{# <tool_call> #}"
    "{% for message in messages %}{{ message.role[0] + ':' + message.content + '|' }}{% endfor %}"
)
RIDE = {"name": "ride", "parameters": {"type": "object", "properties": {"miles": {"type": "integer"}}}}
CALL = '<tool_call>\n{"name": "ride", "arguments": {"miles": 7}}\n</tool_call>'
MILES = {"type": "object", "properties": {"miles": {"const": 7}}, "required": ["miles"]}


@pytest_asyncio.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Gateway]:
    """Serve a decoder that plays a call, with a template that knows tools."""
    folder = tiny_tokenizer.save(tmp_path)
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    async with serve(ChatTokenizer.load(str(folder)), ScriptedDecoder()) as gateway:
        gateway.play(CALL)
        yield gateway


@pytest_asyncio.fixture
async def page(browser: Browser, gateway: Gateway) -> AsyncIterator[Page]:
    """Open the page with its further fields, and speculation on alone."""
    async with open_page(browser, gateway) as page:
        await page.get_by_label("Then the same").uncheck()
        await page.get_by_text("System prompt, tool, schema").click()
        yield page


async def send(page: Page, text: str) -> None:
    """Send a message, and wait for the reply."""
    await page.locator("#message").focus()
    await ask(page, text)
    await expect(page.get_by_role("status").first).to_contain_text("tokens/s")


async def test_a_system_prompt_and_a_tool(page: Page, gateway: Gateway) -> None:
    """Claim: both reach the model, and the next message is the tool's answer, until a reply calls none."""
    await page.get_by_label("System prompt").fill("be brief")
    await page.get_by_label("Tool, as JSON").fill(json.dumps(RIDE))
    await send(page, "go")
    await expect(page.get_by_label("What ride answers")).to_be_focused()
    gateway.play("done")
    await send(page, "7 miles")
    await expect(page.get_by_label("Message")).to_be_focused()
    texts = [gateway.tokenizer.decode(call[0]) for call in gateway.decoder.calls]
    assert texts == ["rides:be brief|u:go|", "rides:be brief|u:go|a:|t:7 miles|"]
    headings = await page.get_by_role("log").get_by_role("heading").all_inner_texts()
    assert headings == ["You", "Reply", "The tool's answer", "Reply"]


async def test_a_call_and_a_schema(page: Page, gateway: Gateway) -> None:
    """Claim: a call can be required, and without one the reply be bound to a schema."""
    await page.get_by_label("Tool, as JSON").fill(json.dumps([{"type": "function", "function": RIDE}]))
    await page.get_by_label("must call").check()
    await send(page, "go")
    await page.get_by_role("button", name="New chat").click()
    await page.get_by_label("Tool, as JSON").fill("")
    await page.get_by_label("Schema").fill(json.dumps(MILES))
    await send(page, "go")
    called, bound = (call[1].grammar for call in gateway.decoder.calls)
    assert called
    assert "ride" in called.text
    assert bound
    assert json.loads(bound.text) == MILES


@pytest.mark.parametrize("label", ["Tool, as JSON", "Schema"])
async def test_what_is_not_json(page: Page, gateway: Gateway, label: str) -> None:
    """Claim: it is told, with the field's name; the field gets the focus, and the message is kept."""
    await page.get_by_label(label).fill("{miles")
    await page.get_by_label("Message").focus()
    await ask(page)
    await expect(page.get_by_role("alert")).to_contain_text(label)
    await expect(page.get_by_label(label)).to_be_focused()
    await expect(page.get_by_label("Message")).to_have_value("hi")
    assert not gateway.decoder.calls


async def test_the_request_as_curl(browser: Browser, gateway: Gateway) -> None:
    """Claim: the command that is copied asks for the same, down to the seed; the key is no part of it."""
    async with serve(gateway.tokenizer, gateway.decoder, api_key=SecretStr("secret")) as closed:
        context = await browser.new_context(permissions=["clipboard-read", "clipboard-write"])
        page = await context.new_page()
        await page.goto(closed.url)
        await page.get_by_label("API key").fill("secret")
        await page.get_by_label("API key").press("Enter")
        await expect(page.locator("#model")).to_have_text("tiny, on")
        await page.get_by_label("Then the same").uncheck()
        await send(page, "it's $HOME")
        await page.get_by_text("The request, as curl").click()
        await page.get_by_role("button", name="Copy").click()
        await expect(page.get_by_text("Copied.")).to_be_visible()
        copied = await page.evaluate("navigator.clipboard.readText()")
        command = shlex.split(copied.replace("\\\n", ""))  # as a shell joins lines
        await context.close()
        assert command[:5] == [
            "curl",
            "-N",
            f"{closed.url}/v1/chat/completions",
            "-H",
            "Authorization: Bearer $OUTRIDER_API_KEY",
        ]
        assert "secret" not in str(command)
        async with httpx.AsyncClient() as http:
            headers = {"Authorization": "Bearer secret", "Content-Type": "application/json"}
            answer = await http.post(command[2], content=command[-1], headers=headers)
    assert answer.status_code == 200
    asked, again = gateway.decoder.calls
    assert again == asked
    assert gateway.tokenizer.decode(asked[0]) == "u:it's $HOME|"


def test_every_reason_is_told() -> None:
    """Claim: the page has words for each reason that a round can have for its k."""
    table = (FOLDER / "run.js").read_text("utf-8").split("const REASONS = {")[1].split("}")[0]
    assert set(re.findall(r"^  (\w+):", table, re.MULTILINE)) == set(Reason)
