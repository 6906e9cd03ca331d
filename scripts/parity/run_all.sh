#!/bin/sh
# Compares mrpo with transformers, PEFT and TRL on one machine: same weights, same pairs, same start.
# usage: run_all.sh MRPO MODEL.gguf WORK_DIR [PYTHON]     (PYTHON: of the environment that setup.sh made)
set -eu
mrpo=$(realpath "$1") model=$(realpath "$2") work=$3 python=${4:-.venv/bin/python}
here=$(dirname "$(realpath "$0")")
python=$(command -v "$python")
mkdir -p "$work" && cd "$work"
rm -rf registered initial dpo smooth mrpo && : > summary.txt

[ -e hf/model.safetensors ] || "$python" "$here/gguf_to_hf.py" "$model" hf
head -n 8 "$here/../../src/demo/train.jsonl" > pairs.jsonl

run() { # DIR: one run, to its end
    "$mrpo" run "$1" 2> "$1/stderr.log" || { tail -n 20 "$1/stderr.log" >&2; exit 1; }
}

"$python" "$here/specs.py" register registered smollm2 "path:$model" models
run registered

# One step at a learning rate that moves nothing shows the adapter every run with this seed begins with.
"$python" "$here/specs.py" train initial registered pairs.jsonl learning_rate=1e-30
run initial
"$python" "$here/specs.py" train dpo registered pairs.jsonl n_epochs=5
run dpo
"$python" "$here/trl_step.py" hf initial/checkpoints/step-000001 dpo pairs.jsonl | tee -a summary.txt

# AdamW divides by the gradient's own size: where that is all rounding, so is the step (two PyTorch runs differ there as well).
# A large epsilon takes this away and leaves what is ours to get right.
"$python" "$here/specs.py" train smooth registered pairs.jsonl n_epochs=5 adam_epsilon=1e-2 learning_rate=1e-2
run smooth
"$python" "$here/trl_step.py" hf initial/checkpoints/step-000001 smooth pairs.jsonl | tee -a summary.txt

# The tuned model as a reference of another run: mrpo scores the pairs with it, and so does PEFT.
"$python" "$here/specs.py" train mrpo registered pairs.jsonl reference=dpo
run mrpo
digest=$(cd "$here" && "$python" -c 'import sys, specs; print(specs.model_of(sys.argv[1])["digest"])' "$OLDPWD/dpo")
"$python" "$here/peft_loads.py" hf dpo/checkpoints/step-000005 mrpo/scores.out.jsonl "$digest" pairs.jsonl | tee -a summary.txt
echo "also in $work/summary.txt"
