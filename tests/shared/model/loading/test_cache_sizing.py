"""How many slots there are, and how long: by what is asked for, and by the memory that is left."""

import threading
from pathlib import Path
from typing import Any

import pytest
import services
import torch
from structlog.testing import capture_logs
from transformers import Qwen2Config

from shared.errors import SettingError
from shared.model.checkpoints.supported import default_length, own_length
from shared.model.loading import cache_sizing
from shared.model.loading.cache_sizing import CacheSizing
from shared.model.loading.load_runner import load_int4_runner, load_runner
from shared.model.loading.turn import Turn

OWN, BYTES = 32_768, 28_672  # Qwen2.5-Coder 1.5B in bfloat16
SLOT = OWN * BYTES


@pytest.mark.parametrize(
    ("asked", "left", "expected"),
    [
        ((None, None), 100 * SLOT, (8, OWN)),
        ((None, None), 10 * SLOT, (5, OWN)),
        ((None, None), 4 * SLOT, (2, OWN)),
        ((None, None), 3 * SLOT, (2, OWN * 3 // 4)),
        ((None, None), 3 * SLOT + 1000 * BYTES, (2, OWN * 3 // 4)),
        ((None, None), 800 * BYTES, (2, 192)),
        ((None, 4096), 4 * SLOT, (8, 4096)),
        ((None, 4096), SLOT, (4, 4096)),
        ((None, OWN), 3 * SLOT, (2, OWN)),
        ((6, None), 100 * SLOT, (6, OWN)),
        ((6, None), 6 * SLOT, (6, OWN // 2)),
        ((1, None), SLOT, (1, OWN // 2)),
        ((32, 1024), SLOT, (32, 1024)),
    ],
)
def test_sizes(
    monkeypatch: pytest.MonkeyPatch, asked: tuple[int | None, int | None], left: int, expected: tuple[int, int]
) -> None:
    """Claim: half of what is left at most, fewer slots first, but two, then length; what is given stays."""
    monkeypatch.setattr(cache_sizing, "memory_left", lambda: left)
    with capture_logs() as logs, CacheSizing(*asked, 0.5) as sizing:
        length = asked[1] or OWN
        assert sizing.choose(length, BYTES) == expected
    [said] = logs
    assert (said["num_slots"], said["max_length"], said["bytes_per_token"]) == (*expected, BYTES)
    assert said["bytes"] == expected[0] * expected[1] * BYTES
    assert (said["log_level"] == "warning") == (expected[1] < length)


@pytest.mark.parametrize(
    ("asked", "left", "key"),
    [
        ((4, OWN), 4 * SLOT - 1, "max_length"),
        ((None, OWN), 2 * SLOT - 1, "max_length"),
        ((512, None), 512 * BYTES * 64, "num_slots"),
        ((None, None), 200 * BYTES, "max_length"),
    ],
)
def test_what_does_not_fit_is_refused(
    monkeypatch: pytest.MonkeyPatch, asked: tuple[int | None, int | None], left: int, key: str
) -> None:
    """Claim: by the key that asks for too much, with what it takes and what is left."""
    monkeypatch.setattr(cache_sizing, "memory_left", lambda: left)
    with CacheSizing(*asked, 0.5) as sizing, pytest.raises(SettingError, match=rf"^{key}: .* GiB of memory are left$"):
        sizing.choose(asked[1] or OWN, BYTES)


def test_whoever_takes_memory_waits_for_those_who_load() -> None:
    """Claim: what is left is measured when nobody loads a model, and by one service after the other."""
    order: list[str] = []

    def start(name: str, loaded: threading.Event) -> threading.Thread:
        def load() -> None:
            with Turn() as turn:
                entered.release()
                loaded.wait(5)
                turn.take()
                order.append(f"{name} takes")
                order.append(f"{name} took")

        entered = threading.Semaphore(0)
        thread = threading.Thread(target=load)
        thread.start()
        assert entered.acquire(timeout=5)
        return thread

    fast, slow = threading.Event(), threading.Event()
    threads = [start("draft", fast), start("target", slow)]
    fast.set()
    threads[0].join(0.3)
    assert (threads[0].is_alive(), order) == (True, [])
    slow.set()
    for thread in threads:
        thread.join(5)
    assert sorted(order[:2]) in ([f"{name} takes", f"{name} took"] for name in ("draft", "target"))


def test_own_length(tmp_path: Path) -> None:
    """Claim: it is the configuration's, stretched where yarn stretches it, and a tokenizer's where that gives one."""
    yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 8192}
    assert own_length(Qwen2Config(max_position_embeddings=8192, rope_parameters=yarn)) == 32_768
    assert own_length(Qwen2Config(max_position_embeddings=32_768, rope_parameters=yarn)) == 32_768
    assert own_length(Qwen2Config(max_position_embeddings=4096)) == 4096
    assert own_length(Qwen2Config(max_position_embeddings=4096), 100) == 100
    for said, length in (("4096", 4096), ("1e30", None), ("null", None), ("x", None)):
        (tmp_path / "tokenizer_config.json").write_text(f'{{"model_max_length": {said}}}')
        assert default_length(tmp_path) == length
    assert default_length(tmp_path / "none") is None


@pytest.mark.parametrize("load", [load_runner, load_int4_runner])
def test_the_cache_is_as_large_as_was_reckoned(
    toy: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, load: Any
) -> None:
    """Claim: a model's own context is the default, and a token takes what was reckoned with."""
    monkeypatch.setattr(cache_sizing, "memory_left", lambda: 2**40)
    kind = ("float32",) if load is load_runner else ()
    with capture_logs() as logs:
        runner = load(toy[1], *kind, None, None)
    [said] = [line for line in logs if line["event"] == "keys and values"]
    assert (runner.num_slots, runner.max_length) == (said["num_slots"], said["max_length"]) == (8, 2048)
    cache = runner._cache
    tensors = (
        cache.values()
        if load is load_int4_runner
        else [t for layer in cache.layers for t in (layer.keys, layer.values)]
    )
    assert said["bytes"] == sum(tensor.nbytes for tensor in tensors)
    assert all(torch.count_nonzero(tensor[1:]) == 0 for tensor in tensors)


def little_memory() -> None:
    """Leave a target's start almost none."""
    vars(cache_sizing)["memory_left"] = lambda: 2**20


def test_services_tell_their_size(toy: tuple[Path, Path], tmp_path: Path) -> None:
    """Claim: a service with little memory starts with a shorter context, and one asked for more ends with one line."""
    with services.service("target_service", tmp_path / "log", plant=little_memory, model=toy[0]) as target:
        [said] = target.events("keys and values")
        assert (said["num_slots"], said["level"]) == (2, "warning")
        assert isinstance(said["bytes"], int)
        assert said["bytes"] <= 2**19
    log = tmp_path / "refused"
    asked = {"num_slots": 8, "max_length": 2048}
    with (
        pytest.raises(pytest.fail.Exception, match="setting max_length: 8 slots of 2048 tokens take"),
        services.service("target_service", log, plant=little_memory, model=toy[0], **asked),
    ):
        pass
