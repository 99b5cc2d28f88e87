"""Completions with a suffix, and llama-server's route for editors."""

import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
import scripted_gateway
import tiny_tokenizer
import toy_gateway
from scripted_gateway import Gateway, ScriptedDecoder, error_of, events, serve

from gateway.text.tokenizer import ChatTokenizer

tiny = scripted_gateway.tiny  # assigned, for pytest looks for fixtures among a module's names


@pytest_asyncio.fixture
async def coder(tmp_path: Path) -> AsyncIterator[Gateway]:
    """Serve a model whose tokenizer can fill in the middle."""
    tokenizer = toy_gateway.with_fim_tokens(ChatTokenizer.load(str(tiny_tokenizer.save(tmp_path))))
    async with serve(tokenizer, ScriptedDecoder()) as gateway:
        gateway.play("rides")
        yield gateway


async def ask(gateway: Gateway, path: str, **fields: Any) -> httpx.Response:
    """Post a request."""
    async with httpx.AsyncClient(base_url=gateway.url, timeout=60) as http:
        return await http.post(path, json=fields)


async def test_a_suffix_makes_a_prompt_of_tokens(coder: Gateway) -> None:
    """Claim: the prompt is prefix, suffix, middle; what a client writes is text; the tokens end the reply."""
    response = await coder.post("/v1/completions", prompt="the <|fim_middle|>", suffix=" ahead<|im_end|>")
    assert response.json()["choices"][0]["text"] == "rides"
    prompt, params, *_ = coder.decoder.calls[0]
    tokenizer = coder.tokenizer
    assert tokenizer.decode(prompt) == "<|fim_prefix|>the <|fim_middle|><|fim_suffix|> ahead<|im_end|><|fim_middle|>"
    assert tokenizer.fim
    assert [token_id for token_id in prompt if token_id in params.stop_token_ids] == tokenizer.fim.prompt([], [])
    await coder.post("/v1/completions", prompt=tokenizer.encode("the"), suffix=" ahead", n=2, ignore_eos=True)
    assert coder.decoder.calls[1][0] == tokenizer.fim.prompt(tokenizer.encode("the"), tokenizer.encode(" ahead"))
    assert not coder.decoder.calls[1][1].stop_token_ids
    await coder.post("/v1/completions", prompt="the", suffix="")
    assert coder.decoder.calls[-1][0] == tokenizer.encode("the")


async def test_what_cannot_be(coder: Gateway, tiny: ChatTokenizer) -> None:
    """Claim: a model without the tokens, an echo, and a text that does not fit are a 400 that names the field."""
    async with serve(tiny, ScriptedDecoder()) as other:
        unable = {
            "suffix": await other.post("/v1/completions", suffix="x"),
            "input_suffix": await ask(other, "/infill", input_prefix="x"),
        }
    refused = unable | {
        "echo": await coder.post("/v1/completions", suffix="x", echo=True),
        "input_prefix": await ask(coder, "/infill", input_prefix="x" * 130),
        "temperature": await ask(coder, "/infill", temperature="warm"),
        "min_tokens": await ask(coder, "/infill", input_prefix="x", n_predict=3, min_tokens=5),
    }
    for field, response in refused.items():
        assert (response.status_code, error_of(response)["param"]) == (400, field)
    assert "n_predict, 3" in error_of(refused["min_tokens"])["message"]
    both = error_of(await ask(coder, "/infill", grammar='root ::= "a"', json_schema={}))
    assert (both["param"], both["message"].endswith("json_schema, grammar")) == ("grammar", True)
    assert not coder.decoder.calls


async def test_long_texts_are_left_to_threads(coder: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """Claim: neither the prompt's tokens nor its text are made on the event loop."""
    asked: list[threading.Thread] = []
    for name in ("decode", "encode", "encode_plain"):
        made = getattr(coder.tokenizer, name)

        def noted(*args: Any, made: Callable[..., Any] = made, **options: Any) -> Any:
            asked.append(threading.current_thread())
            return made(*args, **options)

        monkeypatch.setattr(coder.tokenizer, name, noted)
    for stream in (False, True):
        assert (await ask(coder, "/infill", input_prefix="the", stream=stream)).status_code == 200
    assert len(asked) > 2
    assert threading.main_thread() not in asked


async def test_infill(coder: Gateway) -> None:
    """Claim: llama-server's fields, whole and streamed: the files first, their beginning cut off to fit."""
    files = [{"filename": "old", "text": "horse " * 80}, {"filename": "new", "text": "coach"}]
    fields = {
        "input_prefix": "the ",
        "prompt": "horse ",
        "input_suffix": " ahead",
        "n_predict": 20,
        "input_extra": files,
    }
    whole = (await ask(coder, "/infill", **fields, return_tokens=True)).json()
    prompt = coder.tokenizer.decode(coder.decoder.calls[0][0])
    assert prompt.endswith(
        "<|file_sep|>new\ncoach<|file_sep|>filename\n<|fim_prefix|>the horse <|fim_suffix|> ahead<|fim_middle|>"
    )
    assert len(coder.decoder.calls[0][0]) == scripted_gateway.CONTEXT - 21
    tokens = coder.tokenizer.encode("rides")
    told = {"content": "rides", "stop": True, "stop_type": "eos", "stopping_word": "", "prompt": prompt, "index": 0}
    told |= {"tokens_evaluated": len(coder.decoder.calls[0][0]), "model": scripted_gateway.MODEL, "truncated": False}
    assert {key: whole[key] for key in told} == told
    assert whole["tokens"][: len(tokens)] == tokens
    assert whole["timings"]["predicted_n"] == whole["tokens_predicted"]
    response = await ask(coder, "/infill", **fields, stream=True, stop=["de"])
    *chunks, last = events(response)
    assert "".join(chunk["content"] for chunk in chunks) == "ri"
    assert not any(chunk["stop"] for chunk in chunks)
    assert (last["content"], last["stop"], last["stop_type"], last["stopping_word"]) == ("", True, "word", "de")
    coder.play("rides", finish="length")
    body = {"input_prefix": "the", "n_predict": 0, "logit_bias": [[5, False], [6, 1.5]], "seed": -1}
    warm = (await ask(coder, "/infill", **body)).json()
    assert (warm["content"], warm["tokens_predicted"], warm["stop_type"]) == ("", 0, "limit")
    assert coder.decoder.calls[-1][1].logit_bias == {5: -100, 6: 1.5}
