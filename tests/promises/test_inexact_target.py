"""A target whose rows are not exact is never served silently."""

import os
import tempfile
from pathlib import Path
from unittest.mock import patch

import httpx
import pytest
import torch
from services import StartService, decoder, service
from test_lossless import CASES, run_all
from toy_gateway import serve

from gateway.text.tokenizer import ChatTokenizer
from shared.model.devices.cpu.exactness import proof
from shared.model.devices.cpu.kernels.kernel_linear import KernelLinear
from shared.model.loading import load_engine


def never_exact() -> None:
    """Planted fault: no row count agrees with any other, in any layer."""
    os.environ["OUTRIDER_CACHE"] = tempfile.mkdtemp()
    patch.object(proof, "agreeing_counts", lambda *_: []).start()


def hidden() -> None:
    """Planted fault: products of more than 16 rows have different bits, and the proofs at the start are off."""
    os.environ["OUTRIDER_CACHE"] = tempfile.mkdtemp()
    multiply = KernelLinear.forward

    def inexact(layer: KernelLinear, x: torch.Tensor) -> torch.Tensor:
        y = multiply(layer, x)
        return torch.nextafter(y, torch.full_like(y, torch.inf)) if x.shape[-2] > 16 else y

    patch.object(KernelLinear, "forward", inexact).start()
    patch.object(load_engine, "inexact_pass", lambda *_: ("", torch.zeros(1))).start()


async def test_what_no_proof_sees_the_tests_see(toy: tuple[Path, Path], tmp_path: Path) -> None:
    """The losslessness tests' comparison fails for a target whose bits depend on what runs beside it."""
    settings = {"model": toy[0], "plant": hidden}
    with service("target_service", tmp_path / "target.log", **settings) as target:
        async with decoder(target.address, None) as decode:
            assert decode.target.row_exact
            alone = await run_all(decode, CASES[:24], at_once=1, k=0)
            together = await run_all(decode, CASES[:24], at_once=8, k=0)
    assert alone != together


def test_it_does_not_start(toy: tuple[Path, Path], tmp_path: Path) -> None:
    """The start ends with a sentence that says why, and how to serve it anyway."""
    log = tmp_path / "target.log"
    with pytest.raises(pytest.fail.Exception), service("target_service", log, plant=never_exact, model=toy[0]):
        pass
    last = log.read_text().strip().splitlines()[-1]
    assert last.startswith("setting model: rows are not exact: ")
    assert "a layer of 64 to 128 with bias: no row counts agree" in last
    assert "--allow-inexact" in last


async def test_it_is_told(toy: tuple[Path, Path], tmp_path: Path) -> None:
    """With --allow-inexact it serves, and says so by gRPC and by HTTP."""
    settings = {"plant": never_exact, "model": toy[0], "allow_inexact": True}
    with service("target_service", tmp_path / "target.log", **settings) as target:
        async with decoder(target.address, None) as decode:
            assert not decode.target.row_exact
            async with serve(decode, ChatTokenizer.load(str(toy[0]))) as url, httpx.AsyncClient(base_url=url) as http:
                [model] = (await http.get("/v1/models")).json()["data"]
                assert model["row_exact"] is False
                assert "speculation" in model["warning"]


@pytest.mark.parametrize(
    ("quant", "said"),
    [
        ("int4", "setting quant: Value error, a target decides the tokens, and weights of 4 bits are for drafts alone"),
    ],
)
def test_rounded_weights_are_refused(toy: tuple[Path, Path], tmp_path: Path, quant: str, said: str) -> None:
    """4 bits give no rows to verify with."""
    log = tmp_path / "target.log"
    with pytest.raises(pytest.fail.Exception), service("target_service", log, model=toy[0], quant=quant):
        pass
    assert said in log.read_text()
    assert "Traceback" not in log.read_text()


async def test_nothing_is_rounded_unasked(start: StartService, toy: tuple[Path, Path]) -> None:
    """A folder's weights are served as they are."""
    async with decoder(start("target_service", model=toy[0]).address, None) as decode:
        assert decode.target.row_exact
        assert decode.target.identity.quant == "none"
