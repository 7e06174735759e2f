#!/usr/bin/env bash
# Sweeps under Slurm: sets up a cluster of this one machine, runs the script that `gumbel sweep --print-sbatch` prints as an
# array of eight tasks, tells one of them that its time is over, and checks that it is put into the queue again and that all
# end with the same bits as a plain sweep.
#
#   scripts/slurm.sh GUMBEL FOLDER
#
# GUMBEL is the program, FOLDER an empty folder to work in. Needs to be root, and slurmctld, slurmd and sbatch (Debian:
# slurmctld, slurmd, slurm-client); nothing of a Slurm that is there already is touched.
set -euo pipefail
gumbel=$(realpath "${1:?usage: slurm.sh GUMBEL FOLDER}") folder=$(realpath "${2:?usage: slurm.sh GUMBEL FOLDER}")
host=$(hostname -s)
mkdir -p "$folder"/{state,spool}
export SLURM_CONF=$folder/slurm.conf
cat > "$SLURM_CONF" <<END
ClusterName=one
SlurmctldHost=$host
SlurmctldPort=26817
SlurmdPort=26818
SlurmUser=root
SlurmdUser=root
AuthType=auth/none
CredType=cred/none
AuthInfo=cred_expire=1
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
SelectType=select/cons_res
SelectTypeParameters=CR_CPU
SchedulerParameters=sched_interval=1
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
ReturnToService=2
KillWait=5
NodeName=$host CPUs=$(nproc)
PartitionName=all Nodes=$host Default=YES MaxTime=INFINITE State=UP
END
slurmctld -D 2> "$folder/slurmctld.err" &
ctld=$!
slurmd -D -N "$host" 2> "$folder/slurmd.err" &
slurmd=$!
trap 'kill "$slurmd" "$ctld" 2>/dev/null; wait "$slurmd" "$ctld" 2>/dev/null || true' EXIT

fail() {
    echo "$1" >&2
    tail -n 5 "$folder"/*.log "$folder"/*.err >&2
    exit 1
}
await() { # seconds, what, command...
    local seconds=$1 what=$2
    shift 2
    for ((i = 0; i < 5 * seconds; i++)); do
        if "$@"; then return; fi
        sleep 0.2
    done
    fail "waited $seconds seconds for $what"
}
ready() { sinfo -h -o %t 2>/dev/null | grep -qx idle; }
await 30 "an idle node" ready

cat > "$folder/grid.toml" <<END
[run]
latent = ["categorical:4", "binary:4"]
hidden = "16"
epochs = 150
train-limit = 1000
eval-limit = 100
eval-every = 1
seed = { from = 0, to = 3 }
END
cd "$folder"
"$gumbel" sweep grid.toml --out "$folder/array" --print-sbatch --time 10 > job.sh
job=$(sbatch --parsable job.sh)
echo "job $job"

# Task 0 has the first of the cells.
first=$("$gumbel" sweep grid.toml --dry-run | head -n 1 | awk '{ print $2 }')
saved() { [ -e "$folder/array/$first/checkpoint/latest.safetensors" ]; }
await 60 "a checkpoint of $first" saved
# As Slurm does two minutes before the end of the time. The task may be on its way into the queue before scancel has heard
# that the signal has arrived, which then says that it cannot be signalled now.
id=$(scontrol show job "${job}_0" | sed -nE 's/^JobId=([0-9]+).*/\1/p')
timeout 5 scancel --batch --signal=TERM "$id" || true
stopped() { grep -q "stopped: 0 of 1 cells" "$folder/slurm-${job}_0.out"; }
await 30 "the checkpoint of task 0" stopped
restarted() { scontrol show job "${job}_0" | grep -q "Restarts=1"; }
await 60 "task 0 in the queue again" restarted
over() { [ -z "$(squeue -h)" ]; }
await 300 "the end of the array" over

"$gumbel" sweep grid.toml --out "$folder/plain" --quiet
stable() { sed -E 's/"train_seconds":[^,}]*,"seconds":[^,}]*,"step_ms":[^,}]*//' "$1/metrics.jsonl"; }
cells=0
for run in "$folder"/plain/*/; do
    cell=$(basename "$run")
    [ -s "$folder/array/$cell/summary.json" ] || fail "$cell is not finished"
    cmp "$run/best.safetensors" "$folder/array/$cell/best.safetensors"
    diff <(stable "$run") <(stable "$folder/array/$cell")
    cells=$((cells + 1))
done
echo "$cells cells, one of them in two turns: the same bits"
