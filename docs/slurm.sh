#!/bin/bash
# Two hosts with four GPUs each train one model after another, every batch shared by all eight: sbatch docs/slurm.sh
# Corpus and run must be on a file system that all hosts see. A job that was stopped or requeued resumes from its last checkpoint.
#SBATCH --job-name=siser
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1     # torchrun starts the processes of its host
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=16
#SBATCH --time=08:00:00
#SBATCH --requeue
#SBATCH --open-mode=append

set -eu
recipe=recipes/emodb.toml
data=data/emodb
run=runs/emodb
source .venv/bin/activate

first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)    # rendezvous of all hosts
export OMP_NUM_THREADS=$((SLURM_CPUS_PER_TASK / 4))

srun --kill-on-bad-exit=1 torchrun \
    --nnodes="$SLURM_NNODES" --nproc-per-node=4 \
    --rdzv-backend=c10d --rdzv-endpoint="$first:29500" --rdzv-id="$SLURM_JOB_ID" \
    -m speaker_invariant_ser.cli train "$recipe" --data "$data" --out "$run" --resume \
    --set train.batch_size=128
