#!/usr/bin/env python3
"""Runs TRL's DPOTrainer from the adapter an mrpo run started with, on the same pairs, and compares loss, gradient norm and adapter.

usage: trl_step.py HF_DIR INITIAL_ADAPTER_DIR RUN_DIR

RUN_DIR is an mrpo DPO run: one batch of all its pairs per step, a constant learning rate. INITIAL_ADAPTER_DIR is the adapter it
began with, in PEFT's format.
"""

import json
import sys
import tempfile
from pathlib import Path

import torch
from datasets import Dataset
from peft import PeftModel
from safetensors.torch import load_file, save_file
from trl import DPOConfig, DPOTrainer

from scoring import completion_text, load, render_prompt, token_ids
from specs import events, training_pairs
from summary import record


def as_trl(tokenizer, pair):
    """Texts that TRL tokenizes to the very tokens mrpo computes with."""
    return {
        "prompt": render_prompt(tokenizer, pair["prompt"]),
        "chosen": completion_text(pair["chosen"]) + tokenizer.eos_token,
        "rejected": completion_text(pair["rejected"]) + tokenizer.eos_token,
    }


def check_tokens(tokenizer, dataset, pairs):
    for row, pair in zip(dataset, pairs, strict=True):
        for side in ("chosen", "rejected"):
            expected = token_ids(tokenizer, pair["prompt"], pair[side])
            assert (row["prompt_ids"], row[f"{side}_ids"]) == expected, f"{side} of {pair['prompt']!r}"


def trl_run(tokenizer, model, pairs, settings, n_steps, output):
    objective_free = {"lr_scheduler_type": "constant", "warmup_steps": 0, "report_to": "none", "save_strategy": "no"}
    config = DPOConfig(
        output_dir=output,
        beta=settings["beta"],
        learning_rate=settings["learning_rate"],
        weight_decay=settings["weight_decay"],
        adam_beta1=settings["adam_beta1"],
        adam_beta2=settings["adam_beta2"],
        adam_epsilon=settings["adam_epsilon"],
        max_grad_norm=settings["max_grad_norm"],
        max_length=settings["max_length"],
        per_device_train_batch_size=len(pairs),
        max_steps=n_steps,
        num_train_epochs=n_steps,
        precompute_ref_log_probs=False,
        bf16=False,
        use_cpu=True,
        gradient_checkpointing=False,
        logging_steps=1,
        logging_strategy="steps",
        disable_tqdm=True,
        **objective_free,
    )
    dataset = Dataset.from_list([as_trl(tokenizer, pair) for pair in pairs])
    trainer = DPOTrainer(model=model, args=config, train_dataset=dataset, processing_class=tokenizer)
    check_tokens(tokenizer, trainer.train_dataset, pairs)
    trainer.train()
    return [log for log in trainer.state.log_history if "loss" in log], trainer.model


def initial_adapter(source, target):
    """A copy of the adapter with B at exactly zero, which the step that wrote it moved by its vanishing learning rate."""
    tensors = load_file(source / "adapter_model.safetensors")
    for name, tensor in tensors.items():
        if "lora_B" in name:
            assert tensor.abs().max() < 1e-20, f"{source} is not an initial adapter: {name} is not zero"
            tensors[name] = torch.zeros_like(tensor)
    save_file(tensors, target / "adapter_model.safetensors")
    (target / "adapter_config.json").write_bytes((source / "adapter_config.json").read_bytes())


def relative(a, b):
    return abs(a - b) / max(abs(a), abs(b), 1e-30)


def compare_adapters(start, ours, theirs):
    """Differences relative to how far TRL moved: the worst matrix by norm, all matrices together by norm, the worst element."""
    assert start.keys() == ours.keys() == theirs.keys(), sorted(ours.keys() ^ theirs.keys())[:4]
    moved = {k: (theirs[k] - start[k]).double() for k in theirs}
    off = {k: (ours[k] - theirs[k]).double() for k in theirs}
    together = sum(d.square().sum() for d in off.values()).sqrt() / sum(d.square().sum() for d in moved.values()).sqrt()
    by_matrix = max((off[k].norm() / moved[k].norm()).item() for k in off)
    by_element = max((off[k].abs().max() / moved[k].abs().max()).item() for k in off)
    return by_matrix, together.item(), by_element


def main():
    hf_dir, source, run_dir = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    settings = json.loads((run_dir / "spec.json").read_text())["hyperparameters"]
    steps = {e["step"]: e["values"] for e in events(run_dir) if e["type"] == "metrics"}
    last = max(steps)
    pairs = training_pairs(run_dir)
    assert len(pairs) == settings["batch_size"], "one batch is all pairs"

    tokenizer, model = load(hf_dir)
    with tempfile.TemporaryDirectory() as temp:
        initial_adapter(source, Path(temp))
        start = load_file(Path(temp) / "adapter_model.safetensors")
        peft_model = PeftModel.from_pretrained(model, temp, is_trainable=True)
        logs, trained = trl_run(tokenizer, peft_model, pairs, settings, last, temp)
        trained.save_pretrained(temp)
        theirs = load_file(Path(temp) / "adapter_model.safetensors")
    ours = load_file(run_dir / "checkpoints" / f"step-{last:06}" / "adapter_model.safetensors")

    check = f"TRL, {last} steps, rate {settings['learning_rate']:g}, epsilon {settings['adam_epsilon']:g}"
    print(check)
    print(f"{'step':>4} {'loss mrpo':>12} {'loss TRL':>12} {'norm mrpo':>12} {'norm TRL':>12}")
    worst = {"loss": 0.0, "grad_norm": 0.0}
    for step, log in enumerate(logs, 1):
        for name in worst:
            worst[name] = max(worst[name], relative(steps[step][name], log[name]))
        row = [steps[step]["loss"], log["loss"], steps[step]["grad_norm"], log["grad_norm"]]
        print(f"{step:>4}", *(f"{value:>12.6f}" for value in row))
    by_matrix, together, by_element = compare_adapters(start, ours, theirs)
    record(check, "loss, relative", worst["loss"], 1e-3)
    record(check, "gradient norm, relative", worst["grad_norm"], 1e-3)
    record(check, "adapter: all matrices, norm / moved", together, 1e-2)
    record(check, "adapter: worst matrix, norm / moved", by_matrix, 1e-2)
    record(check, "adapter: worst element / most moved", by_element, None)


if __name__ == "__main__":
    main()
