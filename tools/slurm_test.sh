#!/usr/bin/env bash
# Tests under Slurm with one process for each GPU.
#   GPUS=8 tools/slurm_test.sh PARTITION JOB CONFIG CHECKPOINT [options]
set -eu
if [ $# -lt 4 ]; then
  echo "usage: $0 PARTITION JOB CONFIG CHECKPOINT [options of test.py]" >&2
  exit 2
fi
PARTITION=$1
JOB=$2
CONFIG=$3
CHECKPOINT=$4
shift 4
exec "$(dirname "$0")/slurm_run.sh" "$PARTITION" "$JOB" \
  "$(dirname "$0")/test.py" "$CONFIG" "$CHECKPOINT" "$@"
