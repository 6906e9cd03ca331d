#!/bin/sh
# Makes the Python environment of the parity checks. The product needs none of it.
# usage: setup.sh [VENV]   (default ./.venv)
set -eu
venv=${1:-.venv}
[ -x "$venv/bin/python" ] || python3 -m venv "$venv"
"$venv/bin/python" -m pip install --quiet -r "$(dirname "$0")/requirements.txt"
"$venv/bin/python" -c 'import torch, transformers, trl, peft; print("torch", torch.__version__, "transformers", transformers.__version__, "trl", trl.__version__, "peft", peft.__version__)'
