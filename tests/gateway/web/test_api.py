"""The replies of the OpenAI API, read by the client that users have, over a real socket."""

import asyncio
import itertools
from collections.abc import Sequence
from typing import Any, cast

import httpx
import openai
import pytest
import scripted_gateway
from scripted_gateway import CHAT, CONTEXT, MODEL, ROUND_TIME, TEXT, Gateway, events

from gateway.generation.seeds import choice_seed
from gateway.rounds.round import Round
from shared.sampling_params import SamplingParams

# Assigned, for pytest looks for fixtures among a module's names.
tiny = scripted_gateway.tiny
scripted_server = scripted_gateway.scripted_server
scripted = scripted_gateway.scripted
openai_client = scripted_gateway.openai_client


async def test_chat(scripted: Gateway, openai_client: openai.AsyncOpenAI) -> None:
    """Claim: the async client reads a chat: text, finish reason, usage with the stop token, seed, model and id."""
    reply = await openai_client.chat.completions.create(model=MODEL, messages=cast("Any", CHAT), seed=7)
    assert (reply.choices[0].message.content, reply.choices[0].message.role) == (TEXT, "assistant")
    assert reply.choices[0].finish_reason == "stop"
    assert (reply.id[:9], reply.object, reply.model) == ("chatcmpl-", "chat.completion", MODEL)
    assert reply.usage is not None
    (prompt_ids, params, max_tokens, k), *_ = scripted.decoder.calls
    assert reply.usage.prompt_tokens == len(prompt_ids)
    assert reply.usage.completion_tokens == len(scripted.tokenizer.encode(TEXT)) + 1
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens
    assert (params, k) == (SamplingParams(seed=7, stop_token_ids=frozenset({0, 2})), 4)
    assert max_tokens == CONTEXT - len(prompt_ids)
    assert (reply.model_extra or {})["seed"] == 7


async def test_chat_stream(scripted: Gateway, openai_client: openai.AsyncOpenAI) -> None:
    """Claim: a streamed chat begins with the role, has a chunk a round, ends with a finish reason, then usage."""
    stream = await openai_client.chat.completions.create(
        model=MODEL, messages=cast("Any", CHAT), stream=True, stream_options={"include_usage": True}
    )
    first, *middle, finish, usage = [chunk async for chunk in stream]
    assert (first.choices[0].delta.role, first.choices[0].delta.content) == ("assistant", "")
    assert "".join(chunk.choices[0].delta.content or "" for chunk in middle) == TEXT
    assert len(middle) == scripted.decoder.num_rounds
    assert (finish.choices[0].delta.content, finish.choices[0].finish_reason) == (None, "stop")
    assert all(chunk.usage is None and chunk.id == first.id for chunk in (first, *middle, finish))
    assert usage.usage is not None
    assert (usage.choices, usage.usage.completion_tokens) == ([], len(scripted.tokenizer.encode(TEXT)) + 1)
    assert isinstance((first.model_extra or {})["seed"], int)


async def test_sync_client(scripted: Gateway) -> None:
    """Claim: the sync client reads chats and completions, streamed and not."""

    def talk() -> list[str | None]:
        with openai.OpenAI(base_url=f"{scripted.url}/v1", api_key="none", max_retries=0) as client:
            messages = cast("Any", CHAT)
            chat = client.chat.completions.create(model=MODEL, messages=messages)
            chunks = client.chat.completions.create(model=MODEL, messages=messages, stream=True)
            streamed = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
            completion = client.completions.create(model=MODEL, prompt="hi")
            parts = client.completions.create(model=MODEL, prompt="hi", stream=True)
            texts = "".join(part.choices[0].text for part in parts)
            return [chat.choices[0].message.content, streamed, completion.choices[0].text, texts]

    assert await asyncio.to_thread(talk) == [TEXT] * 4


async def test_completion(scripted: Gateway, openai_client: openai.AsyncOpenAI) -> None:
    """Claim: a completion takes text or ids, encodes text without a template, and is 16 tokens long by default."""
    token_ids = scripted.tokenizer.encode("the horse")
    for prompt in ("the horse", token_ids):
        reply = await openai_client.completions.create(model=MODEL, prompt=cast("Any", prompt))
        assert (reply.choices[0].text, reply.object, reply.id[:5]) == (TEXT, "text_completion", "cmpl-")
    assert [(ids, max_tokens) for ids, _, max_tokens, _ in scripted.decoder.calls] == [(token_ids, 16)] * 2


async def test_several_prompts(scripted: Gateway) -> None:
    """Claim: each prompt of a list has n choices, in order, seeded as if the prompt had come alone."""
    reply = (await scripted.post("/v1/completions", prompt=["hi", "the horse"], n=2, seed=3, max_tokens=5)).json()
    assert [choice["index"] for choice in reply["choices"]] == [0, 1, 2, 3]
    prompts = [scripted.tokenizer.encode("hi"), scripted.tokenizer.encode("the horse")]
    calls = [(ids, params.seed) for ids, params, *_ in scripted.decoder.calls]
    assert sorted(calls) == sorted((ids, choice_seed(3, index)) for ids in prompts for index in (0, 1))
    assert reply["usage"]["prompt_tokens"] == sum(map(len, prompts))


async def test_choices_run_concurrently_within_the_slots(scripted: Gateway) -> None:
    """Claim: n choices run at once, never more than the target has slots, and all chunks say which they belong to."""
    scripted.decoder.pause_seconds = 0.002
    chunks = events(await scripted.post(n=5, stream=True))
    assert scripted.decoder.most_open == scripted.decoder.target.num_slots
    texts = [""] * 5
    for chunk in chunks[:-1]:
        texts[chunk["choices"][0]["index"]] += chunk["choices"][0]["delta"].get("content", "")
    assert (texts, chunks[-1]) == ([TEXT] * 5, "[DONE]")


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "hi"}]}),
        ("/v1/completions", {"prompt": "hi"}),
        ("/v1/responses", {"input": "hi"}),
    ],
)
async def test_no_model_means_the_one_there_is(scripted: Gateway, path: str, fields: dict[str, Any]) -> None:
    """Claim: a request need not name the model, and its reply does."""
    async with httpx.AsyncClient(base_url=scripted.url) as http:
        reply = await http.post(path, json=fields)
    assert (reply.status_code, reply.json()["model"]) == (200, MODEL)


async def test_no_seed_draws_one(scripted: Gateway) -> None:
    """Claim: without a seed the gateway draws one, uses it, reports it, and draws another the next time."""
    reported = [(await scripted.post()).json()["seed"] for _ in range(2)]
    assert [params.seed for _, params, *_ in scripted.decoder.calls] == reported
    assert reported[0] != reported[1]


async def test_fields_reach_the_decoder(scripted: Gateway) -> None:
    """Claim: sampling, the limit (the newer name wins), -1 for all of top_k, and k arrive; null is absent."""
    fields: dict[str, Any] = {
        "temperature": 0,
        "top_p": 0.5,
        "top_k": -1,
        "seed": -1,
        "max_tokens": 9,
        "max_completion_tokens": 8,
    }
    assert (await scripted.post(**fields, speculative={"k": 8}, stop=None, n=None, user="x")).status_code == 200
    _, params, max_tokens, k = scripted.decoder.calls[0]
    assert params == SamplingParams(0, 0.5, 0, -1, frozenset({0, 2}))
    assert (max_tokens, k) == (8, 8)
    await scripted.post(speculative={"enabled": False, "k": 8}, top_k=5)
    assert (scripted.decoder.calls[1][3], scripted.decoder.calls[1][1].top_k) == (0, 5)


@pytest.mark.parametrize("size", [1, 3, 50])
@pytest.mark.parametrize("stream", [False, True])
async def test_stop_string(scripted: Gateway, size: int, stream: bool) -> None:  # noqa: FBT001
    """Claim: a stop string, wherever the rounds split it, ends the reply before it and the session at once.

    Usage counts up to the token that completed it, whatever the size of the rounds.
    """
    scripted.play("the horse rides ahead of the coach and follows", size)
    rounds = list(cast("Sequence[Round]", scripted.decoder.script))
    response = await scripted.post(stop=["zzz", "s ah"], stream=stream, stream_options={"include_usage": True})
    if stream:
        chunks = events(response)[:-1]
        text = "".join(c["delta"].get("content", "") for chunk in chunks for c in chunk["choices"])
        reason, usage = chunks[-2]["choices"][0]["finish_reason"], chunks[-1]["usage"]
    else:
        choice, usage = response.json()["choices"][0], response.json()["usage"]
        text, reason = choice["message"]["content"], choice["finish_reason"]
    assert (text, reason) == ("the horse ride", "stop")
    token_ids = scripted.tokenizer.encode("the horse rides ahead of the coach and follows")
    needed = next(n for n in itertools.count(1) if "s ah" in scripted.tokenizer._tokenizer.decode(token_ids[:n]))
    assert usage["completion_tokens"] == needed
    assert scripted.decoder.num_rounds == min(-(-needed // size), len(rounds))
    assert scripted.decoder.num_open == 0


async def test_held_back_text_comes_at_the_end(scripted: Gateway) -> None:
    """Claim: text that only looked like the beginning of a stop string is not lost."""
    reply = (await scripted.post(stop="ahead of us")).json()
    assert reply["choices"][0]["message"]["content"] == TEXT


async def test_cut_in_the_middle_of_a_character(scripted: Gateway) -> None:
    """Claim: a reply that max_tokens cuts within a character ends with U+FFFD and the finish reason length."""
    token_ids = scripted.tokenizer.encode("a🐎")[:-1]
    scripted.decoder.script = [Round(token_ids, 0, 0, "length", ROUND_TIME)]
    reply = (await scripted.post(max_tokens=len(token_ids))).json()
    assert (reply["choices"][0]["message"]["content"], reply["choices"][0]["finish_reason"]) == ("a\ufffd", "length")


@pytest.mark.parametrize("stream", [False, True])
async def test_metrics(scripted: Gateway, stream: bool) -> None:  # noqa: FBT001
    """Claim: metrics count rounds that had draft tokens and their acceptance, and come when asked for."""
    response = await scripted.post(speculative={"metrics": True}, stream=stream)
    body = events(response)[-2] if stream else response.json()
    rounds = list(cast("Sequence[Round]", scripted.decoder.script))
    drafts = [round_ for round_ in rounds if round_.num_drafted]
    drafted, accepted = 3 * len(drafts), 2 * len(drafts)
    assert len(drafts) == len(rounds) - 1
    metrics = body["metrics"]["speculative_decoding"]
    assert metrics.pop("round_p50_ms").pop("emit") > 0
    assert metrics.pop("by_proposer") == {}
    assert metrics.pop("round_overhead_p50_ms") > 2.0  # the script's, and emit
    assert metrics == {
        "num_drafts": len(drafts),
        "num_draft_tokens": drafted,
        "num_accepted_tokens": accepted,
        "num_forced_tokens": 0,
        "acceptance_rate": accepted / drafted,
        "mean_acceptance_length": 3.0,
        "num_draft_tokens_per_pos": [len(drafts)] * 3,
        "num_accepted_tokens_per_pos": [len(drafts)] * 2 + [0],
        # vLLM's names, which its tools read
        "num_spec_steps": len(drafts),
        "num_spec_tokens": 3,
        "num_accepted_draft_tokens": accepted,
        "draft_acceptance_rate": accepted / drafted,
        "acceptance_histogram": [0, 0, len(drafts), 0],
        "acceptance_histogram_by_draft_length": {"3": [0, 0, len(drafts), 0]},
    }
    assert "metrics" not in (await scripted.post()).json()


async def test_models_and_health(scripted: Gateway, openai_client: openai.AsyncOpenAI) -> None:
    """Claim: the one model is listed and described, another is not found, and health is ok."""
    assert [model.id async for model in openai_client.models.list()] == [MODEL]
    assert (await openai_client.models.retrieve(MODEL)).id == MODEL
    with pytest.raises(openai.NotFoundError) as caught:
        await openai_client.models.retrieve("org/other")
    assert caught.value.code == "model_not_found"
    async with httpx.AsyncClient(base_url=scripted.url) as http:
        health = await http.get("/health")
    assert (health.status_code, health.json()) == (200, {"status": "ok"})


@pytest.mark.parametrize("path", ["/health", "/ready"])
async def test_probes_by_head(scripted: Gateway, path: str) -> None:
    """Claim: a load balancer that asks with HEAD gets the status of GET."""
    async with httpx.AsyncClient(base_url=scripted.url) as http:
        assert [(await http.head(path)).status_code, (await http.get(path)).status_code] == [200, 200]
        scripted.decoder.script = ()  # of no target
        assert (await http.head(path)).status_code == (await http.get(path)).status_code
