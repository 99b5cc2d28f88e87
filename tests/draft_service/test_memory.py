"""What was said before is proposed again: to those whose it is, within bounds, at hardly any cost."""

import asyncio
import random
import time
import tracemalloc
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc
import pytest
from services import StartService, decoder
from toy_gateway import post, serve

from draft_service.memory import END, MAX_NAMESPACES, SLICE, Memory, Said
from draft_service.recall import Recall
from gateway.rounds.decoder import Decoder
from gateway.rounds.round import Round
from gateway.text.tokenizer import ChatTokenizer
from shared.namespace import namespace_of
from shared.pb import specdec_pb2 as pb
from shared.pb import specdec_pb2_grpc as pb_grpc
from shared.sampling_params import SamplingParams

PROMPT, MAX_TOKENS = list(range(40, 70)), 60


async def said(*sequences: Sequence[int], max_tokens: int = 1000) -> Said:
    """Return what these sequences said."""
    held = Said(3, max_tokens)
    for sequence in sequences:
        await held.add(sequence)
    return held


async def test_the_most_frequent_continuation_is_followed() -> None:
    """After 1 2 3 came 4 5 6 twice and, last of all, 7: the guess is 4 5 6, as long as its match, with its odds."""
    guess = (await said([1, 2, 3, 4, 5, 6, 8], [1, 2, 3, 4, 5, 6, 9], [1, 2, 3, 7])).guess([0, 1, 2, 3], 8)
    assert guess.token_ids == [4, 5, 6]
    assert guess.match == 3
    assert guess.score == pytest.approx(2 / 3 * 3)


async def test_a_longer_match_may_be_surer() -> None:
    """Of what follows 3 tokens and what follows 6, that is taken from which more is expected."""
    held = await said([9, 8, 7, 1, 2, 3, 50, 51, 52, 53, 54, 55], *[[1, 2, 3, 60, number] for number in range(4)])
    assert held.guess([9, 8, 7, 1, 2, 3], 8).token_ids == [50, 51, 52, 53, 54, 55]
    assert held.guess([1, 2, 3], 8).token_ids[:1] == [60]


async def test_a_guess_ends_where_a_sequence_does() -> None:
    """Nothing is found across the border of two sequences, and no proposal has what stands there."""
    held = await said([1, 2, 3, 4], [5, 6, 7, 8])
    assert not held.guess([2, 3, 4], 8).token_ids
    assert held.guess([1, 2, 3], 8).token_ids == [4]
    assert not held.guess([3, 4, 5, 6], 8).token_ids


async def test_any_content_proposes_tokens_alone() -> None:
    """Whatever is held and asked, a guess is no longer than asked or than its match, and has tokens alone."""
    rng = random.Random(3)
    for _ in range(300):
        held = await said(
            *(rng.choices(range(rng.choice((2, 5))), k=rng.randrange(40)) for _ in range(6)), max_tokens=100
        )
        num_tokens = rng.randrange(1, 20)
        guess = held.guess(rng.choices(range(3), k=rng.randrange(12)), num_tokens)
        assert len(guess.token_ids) <= min(num_tokens, guess.match)
        assert END not in guess.token_ids
        assert guess.score <= len(guess.token_ids)


async def test_what_is_held_is_bounded() -> None:
    """A namespace forgets its oldest, and the memory its longest unused namespace; 0 holds nothing."""
    held = await said(*([number, *range(90)] for number in range(100)), max_tokens=1000)
    assert 700 < len(held) <= 1000
    assert len(await said(range(5000), max_tokens=1000)) <= 1000
    memory = Memory(3, 1000, 3000)
    for number in range(20):
        assert memory.of("first") or not number
        await memory.add("first", range(500))
        await memory.add(f"other {number}", range(500))
    assert sum(len(one) for one in memory._said.values()) == memory._num_tokens.total() <= 3000
    assert memory.of("other 19")
    assert not memory.of("other 0")
    many = Memory(3, 1000, 10**9)
    for number in range(2 * MAX_NAMESPACES):
        await many.add(str(number), range(9))
    assert len(many._said) == MAX_NAMESPACES
    off = Memory(3, 0, 3000)
    await off.add("", range(500))
    assert not off.of("")


@pytest.mark.parametrize("salts", [40, MAX_NAMESPACES + 8])
async def test_salts_push_out_no_other_key(salts: int) -> None:
    """However many salts one key sends, what others' keys say is kept, and of its own the latest."""
    memory, length = Memory(3, 1000, 10_000), 900 if salts < MAX_NAMESPACES else 9
    others = [namespace_of(f"other {number}", "") for number in range(3)]
    for namespace in others:
        await memory.add(namespace, range(900))
    for salt in range(salts):
        await memory.add(namespace_of("key", f"{salt}"), range(length))
    assert all(map(memory.of, others))
    assert memory.of(namespace_of("key", f"{salts - 1}"))
    assert not memory.of(namespace_of("key", "0"))


async def test_others_go_on_while_much_is_taken_in() -> None:
    """A long reply is taken in by slices: the event loop turns between them, and guesses are made meanwhile."""
    memory, turns, known = Memory(3, 100_000, 100_000), 0, list(range(200, 264))
    await memory.add("", known)

    async def turn() -> None:
        nonlocal turns
        while True:
            turns += 1
            said_so_far = memory.of("")
            assert said_so_far
            assert said_so_far.guess(known[:8], 4).token_ids == known[8:12]
            await asyncio.sleep(0)

    turning = asyncio.create_task(turn())
    await asyncio.gather(*(memory.add("", range(number, 20_000 + number)) for number in (1000, 30_000)))
    turning.cancel()
    held = memory.of("")
    assert held
    assert len(held) == 40_000 + 64 + 3
    assert held.guess(range(30_000, 30_008), 4).token_ids == [30_008, 30_009, 30_010, 30_011]
    assert turns >= 2 * 20_000 // SLICE


async def test_only_what_is_said_is_held() -> None:
    """Of the prompt its end is held, with the reply; nothing if there is no reply, or none yet."""
    memory = Memory(3, 1000, 3000)
    for reply in ([], [7, 8, 9]):
        recall = Recall(memory, "", range(500), 500)
        recall.commit(reply)
        await recall.close()
        held = memory.of("")
        assert (len(held) if held else 0) == (64 + len(reply) + 1 if reply else 0)
    again = Recall(memory, "other", range(500), 400)  # joined in mid-reply, and ended before it was told more
    await again.close()
    assert not memory.of("other")


@pytest.mark.parametrize("repeats", [False, True])
async def test_a_lookup_is_quick(repeats: bool) -> None:  # noqa: FBT001 - parametrized
    """With 100,000 tokens held a guess takes less than a millisecond, and a token about 130 bytes."""
    rng = random.Random(1)
    tracemalloc.start()
    held = Said(3, 100_000)
    for _ in range(200):
        await held.add([rng.randrange(3 if repeats else 50_000) for _ in range(490)])
    size = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert len(held) > 75_000
    assert size < 200 * len(held)
    times = []
    for _ in range(200):
        text = rng.choice(held._parts).text
        start = rng.randrange(len(text) - 64)
        started = time.perf_counter()
        held.guess(text[start : start + 64], 16)
        times.append(time.perf_counter() - started)
    assert sorted(times)[len(times) // 2] < 0.001


async def decode_one(decode: Decoder, namespace: str, seed: int = 7, k: int = 4) -> list[Round]:
    """Return the rounds of the one sequence that all tests decode, once the draft was told all of it."""
    params = SamplingParams(temperature=0.7, seed=seed)
    rounds = decode.decode(PROMPT, params, MAX_TOKENS, k, num_lookup_tokens=8, namespace=namespace)
    done = [one async for one in rounds]
    async with asyncio.timeout(5):
        while decode._draft_client._leaving:
            await asyncio.sleep(0.005)
    return done


def tokens(rounds: Sequence[Round]) -> list[int]:
    """Return the tokens of rounds."""
    return [token_id for done in rounds for token_id in done.token_ids]


def counters(rounds: Sequence[Round]) -> list[object]:
    """Return what a reply's metrics and rounds tell beside its tokens and times."""
    return [(done.num_drafted, done.num_accepted, done.by_proposer(), done.num_cached, done.reason) for done in rounds]


@pytest.mark.parametrize("model", ["none", "good"])
async def test_what_was_said_is_proposed_to_its_own_key_alone(
    start: StartService, toy: tuple[Path, Path], model: str
) -> None:
    """The same request again: fewer rounds for the same key; for another all counters are those of an empty memory."""
    target = start("target_service", model=toy[0], dtype="float32").address
    named = {"none": "none", "good": toy[1]}[model]
    draft = start("draft_service", model=named, dtype="float32", memory_tokens=5000).address
    async with decoder(target, draft) as decode:
        first, again, other, other_again = [await decode_one(decode, f"{model} {name}") for name in "aabb"]
    assert tokens(first) == tokens(again) == tokens(other)
    assert counters(other) == counters(first)
    assert counters(other_again) == counters(again)
    assert len(again) < len(first) * 0.6
    assert sum(done.by_proposer().get("memory", (0, 0))[1] for done in again) > MAX_TOKENS / 2


@pytest.mark.parametrize("num_lookup_tokens", [1, 6, 16])
async def test_on_equals_off(start: StartService, toy: tuple[Path, Path], num_lookup_tokens: int) -> None:
    """Whatever the memory holds, right, wrong or random, no token changes."""
    target = start("target_service", model=toy[0], dtype="float32").address
    draft = start("draft_service", model=toy[1], dtype="float32", memory_tokens=50_000).address
    rng, drafted = random.Random(num_lookup_tokens), Counter[str | None]()
    async with decoder(target, draft) as decode:
        for case in range(6):
            prompt = rng.choices(range(5, 400), k=30)
            params = SamplingParams(temperature=rng.choice((0.0, 1.0)), seed=case)
            plain = [done async for done in decode.decode(prompt, params, 50, 0)]
            reply = tokens(plain)
            other = [token_id if rng.random() < 0.8 else rng.randrange(5, 400) for token_id in reply]
            await teach(
                draft, f"{case}", [prompt, [*reply], other, rng.choices(range(5, 9), k=300)][rng.randrange(1, 4)]
            )
            await teach(draft, f"{case}", other)
            rounds = decode.decode(
                prompt, params, 50, rng.choice((0, 4)), num_lookup_tokens=num_lookup_tokens, namespace=f"{case}"
            )
            made = [done async for done in rounds]
            assert tokens(made) == reply
            drafted.update({done.proposer: done.num_drafted for done in made})
    assert drafted["memory"]


async def teach(draft: str, namespace: str, reply: list[int]) -> None:
    """Have a draft service remember a reply."""
    async with grpc.aio.insecure_channel(draft) as channel:
        call = pb_grpc.DraftServiceStub(channel).Draft()
        opening = pb.DraftOpen(prompt_token_ids=[5], sampling=pb.SamplingParams(top_p=1), namespace=namespace)
        await call.write(pb.DraftRequest(open=opening))
        await call.read()
        await call.write(pb.DraftRequest(advance=pb.DraftAdvance(round=1, position=1, token_ids=reply)))
        await call.done_writing()
        while await call.read() is not grpc.aio.EOF:
            pass


async def test_bad_fields_are_refused(start: StartService) -> None:
    """A namespace that is too long and an acceptance that is no number are named."""
    draft = start("draft_service", model="none").address
    fields: dict[str, dict[str, Any]] = {
        "namespace": {"namespace": "x" * 65},
        "min_lookup_acceptance": {"min_lookup_acceptance": float("nan")},
    }
    for name, wrong in fields.items():
        async with grpc.aio.insecure_channel(draft) as channel:
            call = pb_grpc.DraftServiceStub(channel).Draft()
            opening = pb.DraftOpen(prompt_token_ids=[5], sampling=pb.SamplingParams(top_p=1), **wrong)
            await call.write(pb.DraftRequest(open=opening))
            assert await call.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert (await call.details()).startswith(f"{name}: ")


async def test_without_memory(start: StartService, toy: tuple[Path, Path]) -> None:
    """Claim: such a request is answered as if nothing had been said, and leaves nothing."""
    target = start("target_service", model=toy[0], dtype="float32").address
    draft = start("draft_service", model=toy[1], dtype="float32", memory_tokens=5000).address
    fields: dict[str, Any] = {"prompt": "A rider goes", "max_tokens": MAX_TOKENS, "cache_salt": "one", "seed": 7}
    replies = []
    async with decoder(target, draft) as decode, serve(decode, ChatTokenizer.load(str(toy[0]))) as url:
        for memory in (True, False, True, False, False, True):
            speculative = {"memory": memory, "metrics": True}
            replies.append(await post(url, "/v1/completions", **fields, speculative=speculative))
            while decode._draft_client._leaving:
                await asyncio.sleep(0.005)
    assert len({reply["choices"][0]["text"] for reply in replies}) == 1
    proposers = [reply["metrics"]["speculative_decoding"]["by_proposer"] for reply in replies]
    assert ["memory" in of for of in proposers] == [False, False, True, False, False, True]

    async with decoder(target, draft) as decode, serve(decode, ChatTokenizer.load(str(toy[0]))) as url:
        for _ in range(2):
            fields = fields | {"cache_salt": "another", "speculative": {"memory": False, "metrics": True}}
            reply = await post(url, "/v1/completions", **fields)
            while decode._draft_client._leaving:
                await asyncio.sleep(0.005)
        reply = await post(url, "/v1/completions", **fields | {"speculative": {"metrics": True}})
    assert "memory" not in reply["metrics"]["speculative_decoding"]["by_proposer"]
