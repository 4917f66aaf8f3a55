#!/bin/sh
# Builds sdist and wheel into the directory given (default: dist), byte-identical wherever and whenever it
# runs: times come from the last commit, and all that runs is in build-constraints.txt, by its hashes. Only
# the Python's zlib may give other bytes. Needs git and Python 3.11 or later (PYTHON, default: python3).
#
# The constraints are made by:
#   printf "hatchling\nhatch-fancy-pypi-readme\n" | uv pip compile --generate-hashes --universal --python-version 3.11 \
#       --no-header --no-annotate --no-emit-index-url -o tools/build-constraints.txt -
set -eu
output=$(mkdir -p "${1:-dist}" && cd "${1:-dist}" && pwd)
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
export SOURCE_DATE_EPOCH
python=${PYTHON:-python3}
"$python" -c 'import sys; sys.exit("build.sh needs Python 3.11 or later" if sys.version_info < (3, 11) else 0)'
"$python" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --only-binary :all: \
    --require-hashes --requirement tools/build-constraints.txt
"$work/venv/bin/python" -m hatchling build --directory "$output" --target sdist --target wheel
