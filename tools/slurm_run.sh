#!/usr/bin/env bash
# Runs a script for slurm_train.sh and slurm_test.sh:
#   GPUS=8 GPUS_PER_NODE=8 CPUS_PER_TASK=5 SRUN_ARGS= \
#     slurm_run.sh PARTITION JOB SCRIPT ARGUMENTS...
set -eu
PARTITION=$1
JOB=$2
shift 2
GPUS=${GPUS:-8}
PER_NODE=${GPUS_PER_NODE:-$((GPUS < 8 ? GPUS : 8))}
# A process that fails ends the job; the others would wait for it.
# shellcheck disable=SC2086
exec srun -p "$PARTITION" --job-name="$JOB" --gres="gpu:$PER_NODE" \
  --ntasks="$GPUS" --ntasks-per-node="$PER_NODE" \
  --cpus-per-task="${CPUS_PER_TASK:-5}" --kill-on-bad-exit=1 \
  ${SRUN_ARGS:-} "${PYTHON:-python}" -u "$@" --launcher slurm
