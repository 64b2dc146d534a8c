#!/usr/bin/env bash
# Trains under Slurm with one process for each GPU.
#   GPUS=8 tools/slurm_train.sh PARTITION JOB CONFIG WORK_DIR [options]
set -eu
if [ $# -lt 4 ]; then
  echo "usage: $0 PARTITION JOB CONFIG WORK_DIR [options of train.py]" >&2
  exit 2
fi
PARTITION=$1
JOB=$2
CONFIG=$3
WORK_DIR=$4
shift 4
exec "$(dirname "$0")/slurm_run.sh" "$PARTITION" "$JOB" \
  "$(dirname "$0")/train.py" "$CONFIG" --work-dir "$WORK_DIR" "$@"
