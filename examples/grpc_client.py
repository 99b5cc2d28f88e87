"""Speculative decoding with the two services alone: no gateway, only the gRPC contract.

python examples/grpc_client.py TOKENIZER_FOLDER "a prompt" [--draft HOST:PORT] [--target HOST:PORT] [-k 4] [-n 128]
"""

import argparse
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import grpc
from transformers import AutoTokenizer, GenerationConfig

sys.path.insert(0, str(Path(__file__).parent.parent))
from shared.pb import specdec_pb2 as pb
from shared.pb import specdec_pb2_grpc as pb_grpc


def stream(method: Any) -> tuple[Callable[[Any], None], Iterator[Any]]:
    """Start a bidirectional stream; return a function that sends (None ends the stream), and the responses."""
    outbox: SimpleQueue[Any] = SimpleQueue()
    return outbox.put, method(iter(outbox.get, None))


def decode(
    draft: Any, target: Any, ids: list[int], *, sampling: pb.SamplingParams, k: int, n: int
) -> Iterator[list[int]]:
    """Yield the tokens that each round commits."""
    ask_draft, drafts = stream(draft.Draft)
    ask_target, verdicts = stream(target.Verify)
    ask_target(pb.VerifyRequest(open=pb.VerifyOpen(prompt_token_ids=ids, sampling=sampling, max_tokens=n)))
    opening = pb.DraftOpen(prompt_token_ids=ids, sampling=sampling, num_draft_tokens=k)
    ask_draft(pb.DraftRequest(open=opening))
    next(verdicts)  # the answer to `open`: the target has a slot for us; a refusal would be raised here
    number, position = 0, len(ids)
    while True:
        # Propose: the draft tokens of this round, as they are made.
        proposal: list[int] = []
        for part in drafts:
            proposal += part.token_ids
            if part.last:
                break
        # Verify: one forward pass of the target.
        round_ = pb.VerifyDraft(round=number, position=position, draft_token_ids=proposal)
        ask_target(pb.VerifyRequest(verify=round_))
        verdict = next(verdicts)
        # Commit.
        yield list(verdict.token_ids)
        if verdict.finish_reason:
            ask_draft(None)
            ask_target(None)
            return
        number += 1
        advance = pb.DraftAdvance(round=number, position=position, token_ids=verdict.token_ids, num_draft_tokens=k)
        ask_draft(pb.DraftRequest(advance=advance))
        position += len(verdict.token_ids)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tokenizer")
    parser.add_argument("prompt")
    parser.add_argument("--draft", default="127.0.0.1:50051")
    parser.add_argument("--target", default="127.0.0.1:50052")
    parser.add_argument("-k", type=int, default=4)
    parser.add_argument("-n", type=int, default=128)
    args = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(args.tokenizer)
    draft = pb_grpc.DraftServiceStub(grpc.insecure_channel(args.draft))
    target = pb_grpc.TargetServiceStub(grpc.insecure_channel(args.target))
    ends = GenerationConfig.from_pretrained(args.tokenizer).eos_token_id  # one or several
    sampling = pb.SamplingParams(temperature=0, top_p=1, stop_token_ids=ends if isinstance(ends, list) else [ends])
    tokens: list[int] = []
    for committed in decode(draft, target, tokenizer.encode(args.prompt), sampling=sampling, k=args.k, n=args.n):
        tokens += committed
        print(f"{len(committed)} tokens: {tokenizer.decode(committed)!r}")
    print(tokenizer.decode(tokens))
