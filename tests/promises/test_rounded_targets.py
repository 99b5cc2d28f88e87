"""Rounded targets are lossless too: on every instruction set, equal to that quantised model alone."""

from pathlib import Path

import httpx
import pytest
from k_quant_models import random_model, save_rounded
from own_process import own_process
from services import StartService, decoder
from test_isas import environment
from test_lossless import CASES, run_all
from toy_gateway import serve
from transformers import AutoTokenizer

from gateway.text.tokenizer import ChatTokenizer

Models = tuple[Path, Path, str]


@pytest.fixture(params=["int8", "gguf"])
def rounded(request: pytest.FixtureRequest, toy: tuple[Path, Path], tmp_path: Path) -> Models:
    """Return a target and a draft, and how the target is rounded."""
    if request.param == "int8":
        return *toy, "int8"
    model, folders = random_model("qwen2"), (tmp_path / "target", tmp_path / "draft")
    model.save_pretrained(folders[1])
    save_rounded(model, folders[0])
    for folder in folders:
        AutoTokenizer.from_pretrained(toy[0]).save_pretrained(folder)
    return *folders, "gguf"


@pytest.mark.parametrize("isa", ["own", "avx512_core", "avx2"])
async def test_on_equals_off(start: StartService, rounded: Models, tmp_path: Path, isa: str) -> None:
    """Greedy and sampled, k from 1 to 8, alone and 8 at once, with drafts of 8 bits too: the target's own tokens."""
    model, draft_model, quant = rounded
    draft = start("draft_service", model=draft_model, quant="int8").address
    log, env = tmp_path / "target.log", environment(isa)
    with own_process("target_service", log, env, model=model, quant=quant, threads=2) as target:
        async with decoder(target.address, draft) as decode:
            assert decode.target.row_exact
            assert decode.target.identity.quant == quant
            assert {"int8": "int8", "gguf": "k-quants"}[quant] in decode.target.kernel
            alone = await run_all(decode, CASES[:32], at_once=1, k=0)
            together = await run_all(decode, CASES[:32], at_once=8)
    assert [tokens for tokens, _, _ in together] == [tokens for tokens, _, _ in alone]
    assert sum(accepted for _, _, accepted in together) > 0.3 * sum(drafted for _, drafted, _ in together)


async def test_the_name_tells(start: StartService, toy: tuple[Path, Path]) -> None:
    """Nobody takes it for the model as it was: not in /version, /v1/models, nor by system_fingerprint."""
    told = []
    for quant in ("none", "int8"):
        address = start("target_service", model=toy[0], quant=quant).address
        async with (
            decoder(address, None) as decode,
            serve(decode, ChatTokenizer.load(str(toy[0]))) as url,
            httpx.AsyncClient(base_url=url) as http,
        ):
            version = (await http.get("/version")).json()
            [model] = (await http.get("/v1/models")).json()["data"]
            reply = await http.post("/v1/completions", json={"model": model["id"], "prompt": "a", "max_tokens": 1})
            told.append((version["dtype"], model["dtype"], reply.json()["system_fingerprint"]))
    assert told[0][:2] == ("bfloat16", "bfloat16")
    assert told[1][:2] == ("bfloat16, int8 weights and activations",) * 2
    assert told[0][2] != told[1][2]
