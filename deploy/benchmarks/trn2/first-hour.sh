#!/usr/bin/env bash
# What one hour of a trn2.3xlarge can tell, from `doctor` to AWS's workload, into build/first-hour: docs/deploy.md.
#   deploy/benchmarks/trn2/first-hour.sh                Qwen3-8B with Qwen3-0.6B; run it again where it was cut off
#   deploy/benchmarks/trn2/first-hour.sh --rehearsal    the same steps here, with the toy pair's graphs on the CPU
set -euo pipefail
cd "$(dirname "$0")/../../.."
exec "${PYTHON:-.venv/bin/python}" -m deploy.first_hour "$@"
