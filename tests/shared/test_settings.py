"""Every service's `--help` describes each of its settings, and a bad one is refused by its name."""

import re
import subprocess
import sys

import pytest

from draft_service.settings import DraftSettings
from gateway.settings import GatewaySettings
from shared.model.settings import EngineSettings
from shared.settings import Settings
from target_service.settings import TargetSettings

SERVICES: dict[str, type[Settings]] = {
    "gateway": GatewaySettings,
    "draft_service": DraftSettings,
    "target_service": TargetSettings,
}


def run(service: str, *flags: str) -> subprocess.CompletedProcess[str]:
    """Run a service until it ends by itself."""
    return subprocess.run(
        [sys.executable, "-m", service, *flags], check=False, capture_output=True, text=True, timeout=60
    )


@pytest.mark.parametrize("settings", [EngineSettings, *SERVICES.values()])
def test_every_setting_has_a_description(settings: type[Settings]) -> None:
    """Its docstring is the description."""
    assert [name for name, field in settings.model_fields.items() if not field.description] == []


@pytest.mark.parametrize("service", SERVICES)
def test_help_shows_every_description(service: str) -> None:
    """Each flag is there, and its description."""
    done = run(service, "--help")
    shown = re.sub(r"\s+", "", done.stdout)  # lines are broken anywhere, after a hyphen too
    assert done.returncode == 0
    for name, field in SERVICES[service].model_fields.items():
        assert f"--{name.replace('_', '-')}" in shown
        assert re.sub(r"\s+", "", str(field.description)) in shown


@pytest.mark.parametrize(("service", "required"), [("gateway", "--tokenizer=x"), ("draft_service", "--model=none")])
def test_a_bad_log_level_is_named(service: str, required: str) -> None:
    """The process ends with the line that every bad setting has."""
    done = run(service, required, "--log-level=LOUD")
    assert done.returncode == 2
    assert done.stderr.startswith("setting log_level: ")
    assert "'INFO'" in done.stderr
    assert done.stderr.endswith("(given: 'LOUD')\n")
