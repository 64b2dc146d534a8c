#!/usr/bin/env bash
# What dist_train.sh and dist_test.sh share:
#   dist_run.sh PROCESSES SCRIPT ARGUMENTS...
set -eu
PROCESSES=$1
shift
PYTHON=${PYTHON:-python}
# torchrun would give each process one thread; without a GPU that is slow.
CORES=$(nproc 2>/dev/null || echo 1)
THREADS=$((CORES / PROCESSES > 0 ? CORES / PROCESSES : 1))
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$THREADS}
if [ "${NNODES:-1}" = 1 ] && [ -z "${PORT:-}" ]; then
  MEETING=(--standalone)
else
  MEETING=(--nnodes="${NNODES:-1}" --node_rank="${NODE_RANK:-0}"
    --master_addr="${MASTER_ADDR:-127.0.0.1}" --master_port="${PORT:-29500}")
fi
exec "$PYTHON" -m torch.distributed.run "${MEETING[@]}" \
  --nproc_per_node="$PROCESSES" "$@" --launcher pytorch
