"""`python -m deploy.first_hour.described URL`: what a gateway tells of its target; code 1 if its rows are not exact."""

import json
import sys
import urllib.request


def main() -> None:
    """Print it as JSON."""
    with urllib.request.urlopen(f"{sys.argv[1]}/version", timeout=30) as answer:  # noqa: S310 - our own
        version = json.load(answer)
    sys.stdout.write(json.dumps(version | (version.pop("graphs") or {})))
    sys.exit(not version["row_exact"])


if __name__ == "__main__":
    main()
