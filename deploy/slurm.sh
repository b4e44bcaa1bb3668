#!/usr/bin/env bash
#SBATCH --job-name=morphmlp
#SBATCH --time=24:00:00
#SBATCH --signal=B:TERM@300
# The nodes that decode and, first of all, the head: no GPUs.
#SBATCH --nodes=3 --ntasks-per-node=1 --cpus-per-task=32 --mem=0 --exclusive
#SBATCH hetjob
# The nodes that train.
#SBATCH --nodes=2 --ntasks-per-node=1 --cpus-per-task=48 --gpus-per-node=4 --mem=0 --exclusive
#
# A Ray cluster as one heterogeneous Slurm job, for as long as one run: a head that computes nothing (the first node),
# nodes that decode (label node-role: ingest), nodes that train (node-role: train), MLflow's server on the head.
#
#   sbatch deploy/slurm.sh python pipelines/train_k400.py --config FILE --cluster.storage /shared/me/runs --run-name NAME
#
# from the repository's root on a file system that all nodes share, with .venv made there (make install). The same
# command after the time limit, or after a node was lost, resumes the run. 300 s before the limit the run is told to stop;
# it saves first. MORPHMLP_SHARED names the shared folder for the record (default: build/cluster here).
#
# The token of the cluster is this job's own. Slurm nodes are used by others too: without it they could run code as you.
set -euo pipefail

: "${SLURM_JOB_ID:?start it by sbatch: sbatch deploy/slurm.sh python pipelines/train_k400.py ...}"
[ $# -gt 0 ] || { echo "error: name the command to run: sbatch deploy/slurm.sh python pipelines/train_k400.py ..." >&2; exit 2; }
: "${SLURM_JOB_NODELIST_HET_GROUP_0:?the job has no second part; keep the line \`#SBATCH hetjob\`}"

shared=${MORPHMLP_SHARED:-$PWD/build/cluster}
mkdir -p "$shared"
export PATH="$PWD/.venv/bin:$PATH" RAY_USAGE_STATS_ENABLED=0 RAY_AUTH_MODE=token
RAY_AUTH_TOKEN=$(python -c 'import secrets; print(secrets.token_hex(32))'); export RAY_AUTH_TOKEN

read -r head < <(scontrol show hostnames "$SLURM_JOB_NODELIST_HET_GROUP_0")
# As another node sees it: its own name is often 127.0.1.1 to itself.
address=$(srun --overlap --het-group=1 --nodes=1 --ntasks=1 getent ahostsv4 "$head" | awk 'NR == 1 {print $1}') || true
[ -n "$address" ] || { echo "error: the nodes that train don't know the address of $head (getent ahostsv4 $head)" >&2; exit 1; }
port=6379

steps=() server=
# shellcheck disable=SC2329    # the trap calls it
end() {
  trap '' TERM
  # srun passes this signal on to its step also while Slurm ends the job, when it refuses all other ways to end one.
  [ ${#steps[@]} = 0 ] || kill -USR1 "${steps[@]}" 2>/dev/null || true
  [ -z "$server" ] || bash deploy/mlflow_server.sh stop "$shared/mlflow"
  for _ in $(seq 200); do
    kill -0 "${steps[@]}" 2>/dev/null || break
    sleep 0.1
  done
}
trap end EXIT
trap 'exit 143' TERM

# SIGTERM to an srun would kill its step. So each has a session of its own and a parent that ends at once: Slurm signals
# the batch step's process group, or the descendants of its first process.
step() { steps+=("$(setsid srun --overlap "$@" >&2 & echo $!)"); }
# Ray's local files: paths of sockets must be short, and node-local.
ray=(python deploy/slurm_node.py "$address" "/tmp/ray-$SLURM_JOB_ID")

step --het-group=0 --nodes=1 --ntasks=1 --nodelist="$head" "${ray[@]}" \
  --head --port="$port" --num-cpus=0 --num-gpus=0 --labels=node-role=head --dashboard-host=127.0.0.1
up=
for _ in $(seq 60); do
  if ray health-check --address "$address:$port" >/dev/null 2>&1; then up=yes; break; fi
  sleep 2
done
[ -n "$up" ] || { echo "error: Ray's head on $head ($address:$port) doesn't answer after two minutes" >&2; exit 1; }

decoding=$((SLURM_JOB_NUM_NODES_HET_GROUP_0 - 1))
if [ "$decoding" -gt 0 ]; then
  step --het-group=0 --nodes="$decoding" --ntasks="$decoding" --exclude="$head" "${ray[@]}" \
    --address="$address:$port" --num-cpus="$SLURM_CPUS_PER_TASK_HET_GROUP_0" --labels=node-role=ingest
fi
step --het-group=1 "${ray[@]}" \
  --address="$address:$port" --num-cpus="$SLURM_CPUS_PER_TASK_HET_GROUP_1" --labels=node-role=train

MLFLOW_TRACKING_URI=${MLFLOW_TRACKING_URI:-}
if [ -z "$MLFLOW_TRACKING_URI" ]; then
  # Here, on the batch node, which is the head's. PostgreSQL is asked for; MLFLOW_DATABASE_URI names another one.
  bash deploy/mlflow_server.sh start "$shared/mlflow"
  server=yes
  MLFLOW_TRACKING_URI=http://127.0.0.1:${MLFLOW_PORT:-5000}
fi
export MLFLOW_TRACKING_URI RAY_ADDRESS=$address:$port

# A run counts the nodes that are there when it begins.
python - $((SLURM_JOB_NUM_NODES_HET_GROUP_0 + SLURM_JOB_NUM_NODES_HET_GROUP_1)) <<'END'
import logging, sys, time
import ray

ray.init(logging_level=logging.ERROR, log_to_driver=False)
nodes, deadline = int(sys.argv[1]), time.monotonic() + 120
while (there := sum(node["Alive"] for node in ray.nodes())) < nodes:
    if time.monotonic() > deadline:
        print(f"Ray has started on {there} of {nodes} nodes; the run begins without the others", file=sys.stderr)
        break
    time.sleep(1)
END

# In the background, so that this shell takes Slurm's signal and passes it on; the run saves and ends with 143.
"$@" &
run=$!
trap 'kill -TERM "$run" 2>/dev/null || true' TERM
while :; do
  status=0; wait "$run" || status=$?
  kill -0 "$run" 2>/dev/null || break    # a signal ends `wait` too
done
exit "$status"
