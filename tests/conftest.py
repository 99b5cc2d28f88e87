"""What all tests have at hand."""

import pytest
import reaper

pytest_plugins = ["services"]


def pytest_configure(config: pytest.Config) -> None:
    """Have what this process starts end with it."""
    watching = reaper.watch()

    def end() -> None:
        watching.communicate()

    config.add_cleanup(end)
