#!/bin/sh
# Compares mrpo with transformers, PEFT and TRL on one machine: same weights, same pairs, same start. Ends with one table.
# usage: run_all.sh MRPO [WORK_DIR [PYTHON]]
# MRPO_SHARED: the folder with data/preference, golden and models/stories260k; MRPO_SMOLLM2_GGUF: the GGUF file;
# PYTHON: of the environment that setup.sh made.
set -eu
export HF_HUB_OFFLINE=1
here=$(dirname "$(realpath "$0")")
top=$(realpath "$here/../..")
mrpo=$(realpath "$1")
work=${2:-$top/target/parity}
python=$(command -v "${3:-$top/.venv/bin/python}")
shared=$(realpath "${MRPO_SHARED:-$top/../shared}")
smollm2=$(realpath "${MRPO_SMOLLM2_GGUF:-$top/../models/SmolLM2-135M-Instruct.Q4_1.gguf}")
polite=$shared/data/preference/llms_from_scratch_polite.jsonl
mkdir -p "$work" && cd "$work"
rm -rf runs summary.jsonl && mkdir runs

step() { # NAME ARGUMENT...: one of the programs beside this one
    program=$here/$1.py && shift
    "$python" "$program" "$@"
}
run() { # DIR: one run, to its end
    echo "mrpo run $1"
    "$mrpo" run "$1" 2> "$1/stderr.log" || { tail -n 20 "$1/stderr.log" >&2; exit 1; }
    grep -q '"type":"succeeded"' "$1/events.jsonl" || { tail -n 1 "$1/events.jsonl" >&2; exit 1; }
}
train() { # DIR ARGUMENT...: its spec, then the run
    step specs train "$@"
    run "$1"
}
register() { # DIR SOURCE
    step specs register "$1" "$(basename "$1")" "path:$2" runs/models
    run "$1"
}

[ -e hf/model.safetensors ] || step gguf_to_hf "$smollm2" hf
head -n 8 "$polite" > pairs.jsonl
for name in smollm2_chat_llms_from_scratch_polite smollm2_chat_hh_rlhf_harmless_base_test; do
    logps=$shared/golden/logps_$name.jsonl
    head -n "$(wc -l < "$logps")" "$shared/data/preference/${name#smollm2_chat_}.jsonl" > "$name.jsonl"
done
register runs/smollm2 "$smollm2"
register runs/stories "$shared/models/stories260k"

# TRL. One step at a learning rate that moves nothing shows the adapter every run with this seed begins with.
train runs/initial runs/smollm2 pairs.jsonl learning_rate=1e-30
train runs/dpo runs/smollm2 pairs.jsonl n_epochs=5
step trl_step hf runs/initial/checkpoints/step-000001 runs/dpo
# AdamW divides by the gradient's own size: where that is all rounding, so is the step (two PyTorch runs differ there as well).
# A large epsilon takes this away and leaves what is ours to get right.
train runs/smooth runs/smollm2 pairs.jsonl n_epochs=5 adam_epsilon=1e-2 learning_rate=1e-2
step trl_step hf runs/initial/checkpoints/step-000001 runs/smooth

# The base's log-probabilities, and PEFT with the tuned model, which the same run scores as its second reference.
name=smollm2_chat_llms_from_scratch_polite
train runs/polite runs/smollm2 $name.jsonl batch_size=24 reference=runs/dpo
step golden runs/polite "$shared/golden/logps_$name.jsonl" hf
step made_model runs/polite hf runs/dpo/checkpoints/step-000005
name=smollm2_chat_hh_rlhf_harmless_base_test
train runs/conversations runs/smollm2 $name.jsonl batch_size=12
step golden runs/conversations "$shared/golden/logps_$name.jsonl" hf

# A model with safetensors and no template; then all of its weights trained, and the checkpoint read by transformers.
name=smollm2_chat_llms_from_scratch_polite
train runs/full runs/stories pairs.jsonl n_epochs=3 lora=null learning_rate=1e-3
train runs/plain runs/stories $name.jsonl batch_size=24 reference=runs/full
step golden runs/plain "$shared/golden/logps_stories260k_plain_llms_from_scratch_polite.jsonl" "$shared/models/stories260k"
step made_model runs/plain runs/full/checkpoints/step-000003

# Every loss of TRL, by its own function on the same numbers.
step trl_losses "$mrpo"

step summary summary.jsonl | tee summary.txt
