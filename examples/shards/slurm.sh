#!/bin/bash
#SBATCH --job-name=afmrl
#SBATCH --array=0-7
# The folder lies on a disk that all nodes share. Afterwards, once all tasks have ended well:
#     job=$(sbatch --parsable slurm.sh embed /data/shop)
#     sbatch --dependency=afterok:$job --wrap "afmrl merge /data/shop"
afmrl "$1" "$2" --shard "$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT"
