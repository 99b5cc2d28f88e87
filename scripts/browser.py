"""`make browser`: makes sure that there is a Chromium to test the page at / with."""

import shutil
import subprocess
import sys

NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
PACKAGES = ("chromium-headless-shell", "fonts-dejavu-core")  # Debian's


def find_browser() -> str | None:
    """Return the path of a Chromium-based browser, if this machine has one."""
    return next((path for path in map(shutil.which, NAMES) if path), None)


def main() -> None:
    """Install one with apt-get, if there is none."""
    if find_browser():
        return
    if not shutil.which("apt-get"):
        sys.exit(f"no browser and no apt-get here: install one of {', '.join(NAMES)}")
    subprocess.run(["apt-get", "update"], check=True)  # noqa: S607  # wherever it is
    subprocess.run(["apt-get", "install", "--yes", "--no-install-recommends", *PACKAGES], check=True)  # noqa: S603, S607


if __name__ == "__main__":
    main()
