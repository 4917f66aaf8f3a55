#!/bin/sh
# Builds sdist and wheel into the directory given (default: dist), byte-identical wherever and whenever it
# runs: times come from the last commit, build tools from build-constraints.txt. Needs git and uv.
#
# The constraints are made by:
#   printf "hatchling\nhatch-fancy-pypi-readme\n" | uv pip compile --generate-hashes --universal --python-version 3.11 \
#       --no-header --no-annotate --no-emit-index-url -o tools/build-constraints.txt -
set -eu
output=$(mkdir -p "${1:-dist}" && cd "${1:-dist}" && pwd)
cd "$(dirname "$0")/.."
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
export SOURCE_DATE_EPOCH
exec uv build --quiet --python ">=3.11" --build-constraints tools/build-constraints.txt --require-hashes \
    --out-dir "$output"
