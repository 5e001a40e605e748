#!/usr/bin/env bash
# Scores retrieval of a catalog for a CI job: bash retrieval.sh SHOP RESULTS
# Exit 1 when a figure is under FAIL_UNDER, or has fallen by more than MAX_DROP since the run stored in
# SHOP/retrieval.trec. To store a run, or to accept a new one: cp RESULTS/run.trec SHOP/retrieval.trec and commit it.
set -euo pipefail
shop=${1:?give the folder of the catalog}
results=${2:?give a folder for the results}
mkdir -p "$results"

checks=(--fail-under "${FAIL_UNDER:-recall@5=0.9}")
if [ -f "$shop/retrieval.trec" ]; then
    checks+=(--compare "$shop/retrieval.trec" --max-drop "${MAX_DROP:-recall@1=0.02}")
else
    echo "no run is stored in $shop/retrieval.trec: only the threshold is checked" >&2
fi
[ -z "${GITHUB_ACTIONS:-}" ] || checks+=(--github)

afmrl check "$shop"
afmrl attributes "$shop"
afmrl embed "$shop"
afmrl eval "$shop" --protocol "${PROTOCOL:-identity}" "${checks[@]}" \
    --run-out "$results/run.trec" --markdown "$results/eval.md" --junit "$results/eval.xml" --html "$results/eval.html"
