"""What all tests have at hand."""

import pytest
import reaper

pytest_plugins = ["services"]


def pytest_configure(config: pytest.Config) -> None:
    """Have what this process starts end with it."""
    config.add_cleanup(reaper.watch().communicate)
