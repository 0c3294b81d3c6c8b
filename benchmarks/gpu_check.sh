#!/usr/bin/env bash
# Check tinygrad_ms on a GPU with one command: bash benchmarks/gpu_check.sh [--dry] [--budget SECONDS] [--only PARTS]
# Installs nothing. Needs CuPy; takes PyTorch, JAX, pytest and hypothesis where they are there. Results in gpu_check/.
set -u
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 2
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
exec "${PYTHON:-python3}" benchmarks/gpu_check.py "$@"
