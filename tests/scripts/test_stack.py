"""What `make serve` and its kind start, by the models that they are given."""

import shlex
import shutil
import subprocess
from pathlib import Path

import httpx
import pytest
import tiny_tokenizer

from scripts.stack import folders, free_port, parser, stack
from shared.errors import ModelError

ROOT = Path(__file__).parent.parent.parent


def test_a_target_alone_is_served_with_lookups(
    toy: tuple[Path, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """No pair's draft is started beside it, a line says what DRAFT= would do, and chats have the template given."""
    (tmp_path / "a template").write_text("{{ messages[0].content }}")
    args = parser(None).parse_args([f"--target={toy[0]}", f"--chat-template={tmp_path / 'a template'}"])
    prompt = " the draft proposes and the target verifies," * 4
    body = {"model": toy[0].name, "max_tokens": 8, "speculative": {"k": 4, "rounds": True}}
    with (
        stack(args, free_port(), free_port(), free_port(), log_level="ERROR") as url,
        httpx.Client(base_url=url) as http,
    ):
        said = http.post("/v1/completions", json=body | {"prompt": prompt}, timeout=60).json()
        chat = {"messages": [{"role": "user", "content": prompt}]}
        answer = http.post("/v1/chat/completions", json=body | chat, timeout=60).json()
    drafted = {done["proposer"] for done in said["choices"][0]["rounds"] if done["num_drafted"]}
    assert drafted == {"lookup"}, said
    assert answer["usage"]["prompt_tokens"] == said["usage"]["prompt_tokens"]
    assert "DRAFT= would add a model" in capfd.readouterr().err


def test_flags_choose_the_folders(toy: tuple[Path, Path], tmp_path: Path) -> None:
    """A target alone has no draft, a draft alone is the pair's target's, and a draft of other tokens is refused."""
    stranger = shutil.copytree(toy[1], tmp_path / "stranger")
    tiny_tokenizer.save(stranger)
    given = {
        "--pair=toy": toy,
        f"--target={toy[0]}": (toy[0], None),
        f"--target={toy[0]} --draft={toy[1]}": toy,
        f"--pair=toy --draft={toy[1]}": toy,
        "--pair=toy --draft=none": (toy[0], None),
    }
    for flags, expected in given.items():
        assert folders(parser(None).parse_args(flags.split())) == expected
    with pytest.raises(ModelError, match="stranger: not a draft for toy: their tokenizers differ"):
        folders(parser(None).parse_args(["--pair=toy", f"--draft={stranger}"]))


@pytest.mark.parametrize("name", ["my model.gguf", "it's.gguf", "a,b;c.gguf"])
def test_names_of_files_go_through_make(name: str) -> None:
    """With spaces and quotes, for all that take a target."""
    for goal in ("serve", "demo", "bench"):
        command = ["make", "--dry-run", goal, f"TARGET={name}", f"DRAFT={name}", f"CHAT_TEMPLATE={name}"]
        said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
        words = shlex.split(next(line for line in said.splitlines() if "--pair=" in line))
        assert {f"--target={name}", f"--draft={name}"} <= set(words)
        assert (f"--chat-template={name}" in words) == (goal != "bench")
