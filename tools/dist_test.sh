#!/usr/bin/env bash
# Tests with one process for each GPU, or with gloo on the CPU.
#   tools/dist_test.sh CONFIG CHECKPOINT PROCESSES [any option of test.py]
# Several machines: NNODES=2 NODE_RANK=0|1 MASTER_ADDR=first PORT=29500
set -eu
if [ $# -lt 3 ] || ! [ "$3" -gt 0 ] 2>/dev/null; then
  echo "usage: $0 CONFIG CHECKPOINT PROCESSES [any option of test.py]" >&2
  exit 2
fi
CONFIG=$1
CHECKPOINT=$2
PROCESSES=$3
shift 3
exec "${PYTHON:-python}" "$(dirname "$0")/dist_run.py" "$PROCESSES" \
  "$(dirname "$0")/test.py" "$CONFIG" "$CHECKPOINT" "$@"
