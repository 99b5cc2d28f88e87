"""`make compose-test`: builds the images, brings compose.yaml up, kills the draft in mid-stream, takes it down.

The engine is `docker`, or `podman` with `podman-compose`; ENGINE chooses; BASE_IMAGE and BUILD_FLAGS go to the build.
"""

import os
import shlex
import shutil
import subprocess
import sys
import time

import httpx
from openai import OpenAI

PORT = "18000"
MAX_GATEWAY_MB = 400
ENGINE = os.environ.get("ENGINE") or ("docker" if shutil.which("docker") else "podman")
COMPOSE = ["docker", "compose"] if ENGINE == "docker" else [shutil.which("podman-compose") or "podman-compose"]
ENVIRONMENT = os.environ | {"PORT": PORT, "IMAGE_PREFIX": "" if ENGINE == "docker" else "localhost/"}


def run(*command: str) -> str:
    """Run a command and return what it prints; ends the process if it fails."""
    print("$", shlex.join(command), flush=True)
    done = subprocess.run(command, env=ENVIRONMENT, text=True, stdout=subprocess.PIPE, check=False)  # noqa: S603 - our own
    if done.returncode:
        sys.exit(f"failed with code {done.returncode}\n{done.stdout[-3000:]}")
    return done.stdout.strip()


def build() -> float:
    """Build the three images and print their sizes; returns the gateway's, the last one's, in megabytes."""
    tool = ["docker", "build"] if ENGINE == "docker" else ["buildah", "bud", "--isolation=chroot", "--format=docker"]
    arguments = [
        f"--build-arg={name}={os.environ[name]}" for name in ("BASE_IMAGE", "TORCH_INDEX") if name in os.environ
    ]
    flags = shlex.split(os.environ.get("BUILD_FLAGS", ""))
    for name in ("target", "draft", "gateway"):
        image = f"{ENVIRONMENT['IMAGE_PREFIX']}outrider-{name}"
        run(*tool, *flags, *arguments, "--target", name, "-t", image, ".")
        megabytes = int(run(ENGINE, "image", "inspect", "--format", "{{.Size}}", image)) / 1e6
        print(f"{image}: {megabytes:.0f} MB", flush=True)
    return megabytes


def container(service: str) -> str:
    """Return the id of a service's container; ends the process if it is not running."""
    of_service = ("--quiet", "--filter", f"label=com.docker.compose.service={service}")
    if running := run(ENGINE, "ps", *of_service).split():
        return running[0]
    for ended in run(ENGINE, "ps", "--all", *of_service).split():
        run(ENGINE, "logs", "--tail", "20", ended)
    sys.exit(f"the container of {service} is not running")


def ask(client: OpenAI, *, speculate: bool, kill_draft: bool = False) -> str:
    """Stream an answer; kill the draft's container at the fifth piece if asked to."""
    text = ""
    chunks = client.chat.completions.create(
        model="outrider",
        messages=[{"role": "user", "content": "What is a token?"}],
        max_tokens=200,
        seed=4,
        stream=True,
        extra_body={"speculative": {"enabled": speculate}},
    )
    for pieces, chunk in enumerate(chunks):
        text += (chunk.choices[0].delta.content or "") if chunk.choices else ""
        if kill_draft and pieces == 5:
            run(ENGINE, "kill", container("draft"))
    return text


def main() -> None:
    """Build, bring up, ask, take down."""
    gateway_megabytes = build()
    try:
        run(*COMPOSE, "up", "--detach", "--no-build") if ENGINE == "docker" else run(*COMPOSE, "up", "-d", "--no-deps")
        deadline = time.monotonic() + 180
        while True:
            if ENGINE == "podman":  # no systemd here that would run the health checks
                for service in ("target", "draft"):
                    subprocess.run(["podman", "healthcheck", "run", container(service)], check=False)  # noqa: S603, S607
            try:
                if httpx.get(f"http://127.0.0.1:{PORT}/health", timeout=2).status_code == httpx.codes.OK:
                    break
            except httpx.TransportError:
                if time.monotonic() > deadline:
                    sys.exit("the gateway did not come up")
                time.sleep(1)
        client = OpenAI(base_url=f"http://127.0.0.1:{PORT}/v1", api_key="none", max_retries=0)
        plain = ask(client, speculate=False)
        lost = ask(client, speculate=True, kill_draft=True)
        print(f"{len(plain)} characters; the same with the draft killed in mid-stream: {lost == plain}", flush=True)
        if lost != plain:
            sys.exit("the texts differ")
    finally:
        run(*COMPOSE, "down", "--volumes")
    if gateway_megabytes >= MAX_GATEWAY_MB:
        sys.exit(f"the gateway's image is not under {MAX_GATEWAY_MB} MB")
    print("compose test passed")


if __name__ == "__main__":
    main()
