#!/usr/bin/env bash
# The whole way on a small catalog, in a folder of its own: bash examples/first-catalog.sh FOLDER
# It stops at the first command that fails; the last one fails (exit 1) when retrieval falls under the threshold.
set -euo pipefail
shop=${1:?give a folder to work in}
cp -r "$(dirname "$0")/first-catalog/." "$shop"
cd "$shop"

afmrl check
afmrl attributes --out attributes.csv
afmrl embed
afmrl search "navy blouse with long sleeves" -k 3
afmrl search --like NB-01 -k 3 --html like.html
afmrl eval --protocol identity --fail-under recall@5=1.0 --run-out run.trec
