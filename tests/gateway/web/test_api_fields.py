"""The forms in which the API takes and tells what shapes a reply."""

import math
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import scripted_gateway
import tiny_tokenizer
import torch
import toy_gateway
from reference import Reference
from scripted_gateway import MODEL, TEXT, Gateway, events
from services import ROOT
from tokenizers import Tokenizer, decoders, models
from toy_gateway import post

from gateway.rounds.round import Round
from gateway.text.token_bytes import TokenBytes
from gateway.text.tokenizer import ChatTokenizer
from shared.pb import specdec_pb2 as pb
from shared.sampling_params import SamplingParams

# Assigned, for pytest looks for fixtures among a module's names.
tiny = scripted_gateway.tiny
scripted_server = scripted_gateway.scripted_server
scripted = scripted_gateway.scripted
openai_client = scripted_gateway.openai_client
toy_url = toy_gateway.toy_url


async def test_sampling_fields_reach_the_decoder(scripted: Gateway) -> None:
    """Claim: each field arrives as it was sent."""
    numbers: dict[str, Any] = {
        "min_p": 0.1,
        "frequency_penalty": 1,
        "presence_penalty": -1,
        "repetition_penalty": 1.5,
        "min_tokens": 2,
    }
    fields: dict[str, Any] = {
        "seed": 7,
        "logit_bias": {"5": 1.5},
        "stop_token_ids": [9],
        "logprobs": True,
        "top_logprobs": 2,
    }
    assert (await scripted.post(**fields, **numbers)).status_code == 200
    expected = SamplingParams(
        1, 1, 0, 7, frozenset({0, 2, 9}), 0.1, 1, -1, 1.5, {5: 1.5}, 2, logprobs=True, top_logprobs=2
    )
    assert scripted.decoder.calls[0][1] == expected
    await scripted.post(ignore_eos=True, stop_token_ids=[9])
    assert scripted.decoder.calls[1][1].stop_token_ids == {9}
    await scripted.post("/v1/completions", logprobs=0)
    assert (scripted.decoder.calls[2][1].logprobs, scripted.decoder.calls[2][1].top_logprobs) == (True, 0)


def tell(scripted: Gateway, text: str, size: int = 3) -> list[int]:
    """Script this text with log-probabilities, a stop token after it; the i-th token has -i and token 7 has -0.5."""
    token_ids = [*scripted.tokenizer.encode(text), 2]
    every = [pb.TokenLogprobs(logprob=-i, top_token_ids=[7], top_logprobs=[-0.5]) for i in range(len(token_ids))]
    starts = range(0, len(token_ids), size)
    rounds = [(token_ids[start : start + size], every[start : start + size]) for start in starts]
    time = scripted_gateway.ROUND_TIME
    scripted.decoder.script = [
        Round(ids, 0, 0, "stop" if ids[-1] == 2 else None, time, logprobs=logprobs) for ids, logprobs in rounds
    ]
    return token_ids[:-1]


@pytest.mark.parametrize("stream", [False, True])
async def test_chat_logprobs(scripted: Gateway, stream: bool) -> None:  # noqa: FBT001
    """Claim: each token of the text has its own, with its bytes, whole characters or not; the stop token has none."""
    text = "the 🐎 horse"
    token_ids = tell(scripted, text)
    response = await scripted.post(logprobs=True, top_logprobs=1, stream=stream)
    if stream:
        reported = [c["logprobs"] for chunk in events(response)[:-1] for c in chunk["choices"] if c["logprobs"]]
        content = [token for one in reported for token in one["content"]]
    else:
        content = response.json()["choices"][0]["logprobs"]["content"]
    assert bytes(byte for token in content for byte in token["bytes"]).decode() == text
    assert [token["logprob"] for token in content] == [-i for i in range(len(token_ids))]
    assert any(token["token"].startswith("\\x") for token in content)
    seven = scripted.tokenizer.token_bytes.text(7)
    assert content[3]["top_logprobs"] == [{"token": seven, "logprob": -0.5, "bytes": list(seven.encode())}]


async def test_completion_logprobs_and_echo(scripted: Gateway, openai_client: openai.AsyncOpenAI) -> None:
    """Claim: OpenAI's client reads a completion's; offsets fit the text; echo puts the prompt first."""
    token_ids = tell(scripted, TEXT)
    reply = await openai_client.completions.create(model=MODEL, prompt="hi", logprobs=1)
    logprobs = reply.choices[0].logprobs
    assert logprobs is not None
    assert (logprobs.tokens, logprobs.text_offset, logprobs.token_logprobs) == (
        [scripted.tokenizer.token_bytes.text(token_id) for token_id in token_ids],
        [len(scripted.tokenizer.decode(token_ids[:i])) for i in range(len(token_ids))],
        [-float(i) for i in range(len(token_ids))],
    )
    assert all(len(top) == 2 for top in logprobs.top_logprobs or ())
    scripted.play(TEXT)
    for prompt in ("hi ", scripted.tokenizer.encode("hi ")):
        body = (await scripted.post("/v1/completions", prompt=prompt, echo=True)).json()
        assert body["choices"][0]["text"] == f"hi {TEXT}"


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
async def test_token_ids(scripted: Gateway, path: str) -> None:
    """Claim: the ids of prompt and reply where vLLM has them, whole and in pieces; nothing of them unless asked."""
    token_ids = [*tell(scripted, TEXT), 2]
    whole = (await scripted.post(path, return_token_ids=True, logprobs=1 if path == "/v1/completions" else True)).json()
    prompt = scripted.decoder.calls[-1][0]
    of_choice, of_reply = whole["choices"][0], whole
    assert of_choice["token_ids"] == token_ids
    assert (of_reply if "chat" in path else of_choice)["prompt_token_ids"] == prompt
    chunks = events(await scripted.post(path, return_token_ids=True, stream=True, stop=["ahead"]))[:-1]
    told = [chunk if "chat" in path else chunk["choices"][0] for chunk in chunks]
    assert [one.get("prompt_token_ids") for one in told] == [prompt] + [None] * (len(told) - 1)
    streamed = [token_id for chunk in chunks for token_id in chunk["choices"][0]["token_ids"]]
    assert streamed == token_ids[: len(streamed)] != token_ids
    assert "token_ids" not in (await scripted.post(path)).text
    named = await scripted.post(
        path, return_tokens_as_token_ids=True, logprobs=1 if path == "/v1/completions" else True
    )
    logprobs = named.json()["choices"][0]["logprobs"]
    names = logprobs.get("tokens") or [one["token"] for one in logprobs["content"]]
    assert names == [f"token_id:{token_id}" for token_id in token_ids[: len(names)]]


async def test_logprobs_are_the_targets_own(toy_url: str, toy: tuple[Path, Path]) -> None:
    """Claim: over HTTP, with speculation on, they are to 1e-4 those of transformers' own model."""
    tokenizer = ChatTokenizer.load(str(toy[0]))
    prompt = tokenizer.encode("What is a token?")
    body = await post(toy_url, "/v1/completions", prompt=prompt, seed=9, max_tokens=30, logprobs=4, temperature=0.8)
    reported = body["choices"][0]["logprobs"]
    params = SamplingParams(0.8, seed=9, stop_token_ids=tokenizer.stop_token_ids)
    token_ids, distributions = Reference(toy[0]).decode_with_logprobs(prompt, params, 30)
    assert reported["tokens"] == [tokenizer.token_bytes.text(token_id) for token_id in token_ids]
    for token_id, logprob, top, expected in zip(
        token_ids, reported["token_logprobs"], reported["top_logprobs"], distributions, strict=True
    ):
        assert math.isclose(logprob, expected[token_id], abs_tol=1e-4)
        assert math.isclose(max(top.values()), expected.max(), abs_tol=1e-4)


@pytest.mark.parametrize("k", [0, 4])
async def test_logprobs_of_a_prompt(toy_url: str, toy: tuple[Path, Path], k: int) -> None:
    """Claim: with echo they are those of the prompt's tokens too, the first of which has none, a long one or short."""
    tokenizer, reference = ChatTokenizer.load(str(toy[0])), Reference(toy[0])
    text = "A seed is a number from which all the noise follows. " * 4
    for length in (1, 2, 17, 18, 70):
        prompt = [*tokenizer.encode(text)[: length - 1], 2]  # the last one is a stop token
        for max_tokens in (0, 3):
            fields = {"prompt": prompt, "echo": True, "logprobs": 1, "max_tokens": max_tokens, "temperature": 0}
            speculative = {"k": k} if k else {"enabled": False}
            body = await post(toy_url, "/v1/completions", speculative=speculative, **fields)
            reported = body["choices"][0]["logprobs"]
            with torch.inference_mode():
                logprobs = reference.model(torch.tensor([prompt])).logits[0].log_softmax(-1)
            expected = logprobs[range(length - 1), prompt[1:]].tolist()
            assert reported["token_logprobs"][0] is reported["top_logprobs"][0] is None
            assert reported["token_logprobs"][1:length] == pytest.approx(expected, abs=1e-4)
            assert len(reported["tokens"]) == length + body["usage"]["completion_tokens"]
            assert body["usage"]["completion_tokens"] <= max_tokens
            alone = await post(toy_url, "/v1/completions", prompt=prompt, max_tokens=3, temperature=0)
            reply = alone["choices"][0]["text"] if max_tokens else ""
            assert body["choices"][0]["text"] == tokenizer.decode(prompt) + reply


@pytest.mark.parametrize(("include", "expected"), [(False, "the horse ride"), (True, "the horse rides ah")])
async def test_include_stop_string(scripted: Gateway, include: bool, expected: str) -> None:  # noqa: FBT001
    """Claim: the stop string is part of the reply where that is asked for, and what follows it is not."""
    body = (await scripted.post(stop=["s ah"], include_stop_str_in_output=include)).json()
    assert (body["choices"][0]["message"]["content"], body["choices"][0]["finish_reason"]) == (expected, "stop")


async def test_stop_strings_wait_for_min_tokens(scripted: Gateway) -> None:
    """Claim: a stop string within the first min_tokens ends nothing."""
    num_tokens = len(scripted.tokenizer.encode("the horse"))
    body = (await scripted.post(stop=["e"], min_tokens=num_tokens)).json()
    assert body["choices"][0]["message"]["content"] == "the horse rid"


def test_bytes_of_tokens(tmp_path: Path) -> None:
    """Claim: byte-level tokens give back every byte; SentencePiece's give spaces and single bytes."""
    tokenizer = ChatTokenizer.load(str(tiny_tokenizer.save(tmp_path)))
    text = "naïve 東京 🐎!\n\x00"
    assert b"".join(map(tokenizer.token_bytes.__getitem__, tokenizer.encode(text))) == text.encode()
    assert tokenizer.token_bytes.text(2) == "<|im_end|>"
    assert tokenizer.token_bytes[290_000] == b""
    pieces = Tokenizer(models.BPE({"▁the": 0, "<0xE2>": 1}, []))
    pieces.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    names = TokenBytes(pieces)
    assert (names[0], names[1], names.text(1)) == (b" the", b"\xe2", "\\xe2")


async def test_tokenize_and_detokenize(scripted: Gateway) -> None:
    """Claim: as vLLM has them: a text or a chat to tokens, and back; errors name the field."""
    tokenizer = scripted.tokenizer
    async with httpx.AsyncClient(base_url=scripted.url) as http:
        tokens = (await http.post("/tokenize", json={"prompt": "the horse", "return_token_strs": True})).json()
        token_ids = tokenizer.encode("the horse")
        assert (tokens["tokens"], tokens["count"], tokens["max_model_len"]) == (token_ids, len(token_ids), 120)
        assert "".join(tokens["token_strs"]) == "the horse"
        chat = (await http.post("/tokenize", json={"model": MODEL, "messages": scripted_gateway.CHAT})).json()
        text = (await http.post("/detokenize", json={"tokens": chat["tokens"]})).json()["prompt"]
        assert text == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
        for path, body, param in (
            ("/tokenize", {}, None),
            ("/tokenize", {"prompt": 5}, "prompt"),
            ("/detokenize", {"tokens": [1, -1]}, "tokens.1"),
            ("/detokenize", {"tokens": [1], "model": "other"}, "model"),
        ):
            response = await http.post(path, json=body)
            assert 400 <= response.status_code < 500
            assert scripted_gateway.error_of(response)["param"] == param


async def test_version_and_docs(scripted: Gateway) -> None:
    """Claim: the version is the project's, and the API describes itself with its fields."""
    async with httpx.AsyncClient(base_url=scripted.url) as http:
        version = (await http.get("/version")).json()["version"]
        described = (await http.get("/openapi.json")).json()
        assert (await http.get("/docs")).status_code == 200
    assert f'VERSION = "{version}"' in (ROOT / "shared" / "version.py").read_text()
    assert "min_p" in described["components"]["schemas"]["ChatRequest"]["properties"]


async def test_cached_tokens(toy_url: str) -> None:
    """Claim: the usage has the tokens of a prompt that need not be run again: of several replies, the first one's."""
    text = "Who would travel fast must know the road. " * 3
    counts = []
    for n in (1, 1, 2):
        usage = (await post(toy_url, "/v1/completions", prompt=text, n=n, max_tokens=3))["usage"]
        counts.append((usage["prompt_tokens"], usage["prompt_tokens_details"]["cached_tokens"]))
    [(whole, fresh), *again] = counts
    assert fresh < whole - 1
    assert again[0] == (whole, whole - 1)
    assert again[1][0] == whole
    assert 0 < again[1][1] < whole
    body = {"input": text, "max_output_tokens": 3}
    cached = [(await post(toy_url, "/v1/responses", **body))["usage"]["input_tokens_details"] for _ in range(2)]
    assert cached[0]["cached_tokens"] < cached[1]["cached_tokens"]
