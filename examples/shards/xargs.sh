#!/bin/sh
# Attributes and vectors of a folder in shards on this machine, some at a time. Killed, run it again: what is done stays.
#     sh xargs.sh FOLDER SHARDS WORKERS
set -e
folder=${1:-.} shards=${2:-8} workers=${3:-2}
for command in ${COMMANDS:-attributes embed}; do
    seq 0 $((shards - 1)) | xargs -P "$workers" -I{} afmrl "$command" "$folder" --shard "{}/$shards"
    afmrl merge "$folder"
done
