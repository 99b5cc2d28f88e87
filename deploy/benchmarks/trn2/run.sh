#!/usr/bin/env bash
# AWS's published benchmark of speculative decoding on Trainium2, against a gateway of ours, beside its figures.
#   deploy/benchmarks/trn2/run.sh --gateway=http://127.0.0.1:8000          one that runs: docs/deploy.md
#   deploy/benchmarks/trn2/run.sh --pair=toy --device=simulated            here, on the simulated device
# For the other draft, serve Qwen3-0.6B and run it again. Any flag of `python -m benchmarks trn2 --help` may follow.
set -euo pipefail
cd "$(dirname "$0")/../../.."
exec "${PYTHON:-.venv/bin/python}" -m benchmarks trn2 "$@"
