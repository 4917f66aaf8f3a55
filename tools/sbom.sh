#!/bin/sh
# Prints the CycloneDX list (SBOM) of a wheel and all that is installed with it. Needs uv.
#   tools/sbom.sh WHEEL
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
uv venv --quiet --no-project "$work/venv"
uv pip install --quiet --python "$work/venv" "$1"
# It would name this machine's path to the wheel.
rm "$work"/venv/lib/python*/site-packages/airflow_setproctitle_shim-*.dist-info/direct_url.json
uv tool run --quiet --from cyclonedx-bom==7.5.0 cyclonedx-py environment --output-reproducible "$work/venv/bin/python"
