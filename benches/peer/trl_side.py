#!/usr/bin/env python3
"""One run of TRL's DPOTrainer, as TRL is best told to do it on a CPU. Runs in the environment of the parity checks.

usage: trl_side.py HF_DIR PAIRS.jsonl CASE SIDE RESULT.json

TRL knows one reference. With more, each step (or the pass before training) computes so many further forward passes of the base:
the work another reference costs, without the memory of another model.
"""

import json
import sys
import tempfile
import time
from pathlib import Path

import paths  # noqa: F401
import torch
from cases import CASES, SIDES
from datasets import Dataset
from peft import LoraConfig
from scoring import read_pairs
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import DPOConfig, DPOTrainer
from trl_step import as_trl, check_tokens


class Clock(TrainerCallback):
    """Seconds from the beginning of training to its end, set-up of the process not included."""

    def on_train_begin(self, *_, **__):
        self.begin = time.monotonic()

    def on_train_end(self, *_, **__):
        self.seconds = time.monotonic() - self.begin


class Trainer(DPOTrainer):
    """DPOTrainer with further references, and a clock around the pass before training."""

    extra_references = 0
    reference_s = 0.0

    def _precompute_ref_logps(self, *arguments):
        begin = time.monotonic()
        dataset = super()._precompute_ref_logps(*arguments)
        self.reference_s += time.monotonic() - begin
        return dataset

    def compute_ref_log_probs(self, model, inputs):
        for _ in range(self.extra_references):
            super().compute_ref_log_probs(model, inputs)
        return super().compute_ref_log_probs(model, inputs)

    def _compute_loss(self, model, inputs, return_outputs):
        if not self.precompute_ref_logps:
            for _ in range(self.extra_references):
                super().compute_ref_log_probs(self.ref_model or model, inputs)
        return super()._compute_loss(model, inputs, return_outputs)


def settings(case, side, output):
    return DPOConfig(
        output_dir=output,
        beta=0.1,
        learning_rate=case.learning_rate,
        lr_scheduler_type="constant",
        warmup_steps=0,
        weight_decay=0.0,
        max_grad_norm=1.0,
        max_length=case.max_length,
        per_device_train_batch_size=case.micro_pairs,
        gradient_accumulation_steps=case.accumulation,
        num_train_epochs=1,
        precompute_ref_log_probs=side.is_precomputed,
        bf16=side.dtype == "bfloat16",
        use_cpu=True,
        # Faster and larger; with it, TRL computes every layer's forward twice.
        gradient_checkpointing=False,
        logging_steps=1,
        logging_strategy="steps",
        disable_tqdm=True,
        report_to="none",
        save_strategy="no",
    )


def main():
    hf_dir, pairs, case, side, result = sys.argv[1:]
    case, side = CASES[case], SIDES[side]
    pairs = read_pairs(pairs)
    # A frozen base is kept in bfloat16; trained weights stay float32 and are computed with in bfloat16.
    dtype = torch.bfloat16 if side.dtype == "bfloat16" and case.is_lora else torch.float32
    tokenizer = AutoTokenizer.from_pretrained(hf_dir)
    model = AutoModelForCausalLM.from_pretrained(hf_dir, dtype=dtype, attn_implementation="sdpa")
    lora = LoraConfig(r=8, lora_alpha=16, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM") if case.is_lora else None
    dataset = Dataset.from_list([as_trl(tokenizer, pair) for pair in pairs])
    clock = Clock()
    Trainer.extra_references = case.extra_references
    with tempfile.TemporaryDirectory() as output:
        trainer = Trainer(
            model=model,
            args=settings(case, side, output),
            train_dataset=dataset,
            processing_class=tokenizer,
            peft_config=lora,
            callbacks=[clock],
        )
        check_tokens(tokenizer, trainer.train_dataset, pairs)
        trainer.train()
    logs = [log for log in trainer.state.log_history if "loss" in log]
    figures = {
        "reference_s": trainer.reference_s,
        "train_s": clock.seconds,
        "losses": [log["loss"] for log in logs],
        "grad_norms": [log["grad_norm"] for log in logs],
    }
    Path(result).write_text(json.dumps(figures))


if __name__ == "__main__":
    main()
