#!/usr/bin/env bash
# Trains with one process for each GPU, or with gloo on the CPU.
#   tools/dist_train.sh CONFIG PROCESSES [any option of tools/train.py]
# Several machines: NNODES=2 NODE_RANK=0|1 MASTER_ADDR=first PORT=29500
set -eu
if [ $# -lt 2 ] || ! [ "$2" -gt 0 ] 2>/dev/null; then
  echo "usage: $0 CONFIG PROCESSES [any option of tools/train.py]" >&2
  exit 2
fi
CONFIG=$1
PROCESSES=$2
shift 2
exec "${PYTHON:-python}" "$(dirname "$0")/dist_run.py" "$PROCESSES" \
  "$(dirname "$0")/train.py" "$CONFIG" "$@"
