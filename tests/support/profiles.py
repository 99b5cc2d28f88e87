"""Profiles of simulated devices, made for a test."""

from pathlib import Path


def write_profile(path: Path, milliseconds: float) -> Path:
    """Write a profile in which every pass takes this long."""
    costs = f"rows = [1]\nmilliseconds = [{milliseconds}]\nmilliseconds_per_session = 0\n"
    path.write_text(f'source = "a test"\nassumed = "all"\n{costs}')
    return path
