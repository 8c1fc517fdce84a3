#!/bin/sh
# Install the wheel of dist/ with the demo's pins into a clean environment, and run its demo outside the checkout.
set -eu
python=${1:-python3}
root=$(pwd)
wheel=$(ls "$root"/dist/ollama_dify-*.whl)
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT

echo "Installing $(basename "$wheel") into a clean environment …"
"$python" -m venv "$place/venv"
pip() { "$place/venv/bin/python" -m pip --quiet --quiet --disable-pip-version-check --no-input "$@"; }
pip install --no-deps --require-hashes --only-binary=:all: -r requirements/demo.txt
pip install --no-deps --no-index "$wheel"
pip check
cd "$place"
unset PYTHONPATH
# Nothing listens there, so the demo starts its simulated server.
OLLAMA_HOST=127.0.0.1:9 "$place/venv/bin/ollama-dify" demo >demo.txt || { cat demo.txt && exit 1; }
head -n 1 demo.txt
tail -n 1 demo.txt
