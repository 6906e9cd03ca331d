#!/usr/bin/env python3
"""Every pair loss of TRL, by TRL's own DPOTrainer._compute_loss and by mrpo, on the same random numbers in float64: the loss, and its
gradients by the log-probabilities of whole completions.

usage: trl_losses.py MRPO | --url URL       (exit status 1 if a figure is over its limit)

MRPO is the program: it is started on a free port, with a data directory that is thrown away. The trainer is made without a model; a
stub in its place answers with per-token log-probabilities whose sums are the numbers compared. Differences are relative to the
largest number of the batch. TRL's `sft` is the mean over the tokens of the whole batch, mrpo's `sft_weight` the mean over pairs of the
mean over tokens: where it takes part, all chosen completions have one length, and both are the same.
"""

import contextlib
import json
import subprocess
import sys
import tempfile
import types
import urllib.request
from collections import defaultdict

import torch
from trl.trainer.dpo_trainer import DPOTrainer

from summary import record

LIMIT = 1e-9
BETAS = (0.01, 0.1, 0.5)
# Pairs of a batch, and the longest completion.
BATCHES = ((1, 5), (8, 40), (32, 300))
# TRL's names and weights, label smoothing. TRL's `sigmoid` knows no smoothing, and its `exo_pair` is nothing without any.
CASES = [
    ({name: 1.0}, smoothing)
    for name in (
        "sigmoid", "hinge", "ipo", "exo_pair", "nca_pair", "robust", "bco_pair", "sppo_hard", "aot", "aot_unpaired",
        "apo_zero", "apo_down", "discopop", "sft", "sigmoid_norm",
    )
    for smoothing in ((0.1,) if name == "exo_pair" else (0.0, 0.1) if name in ("robust", "aot", "aot_unpaired") else (0.0,))
] + [
    ({"sigmoid": 0.8, "bco_pair": 0.2, "sft": 1.0}, 0.0),
    ({"hinge": 0.3, "ipo": 0.05, "robust": 1.5, "aot": 2.0, "discopop": 0.7, "sigmoid_norm": 1.0}, 0.1),
]
TAU = 0.05


class Batch:
    """Random pairs: log-probabilities of whole completions, their lengths, and how each sum is spread over its tokens."""

    def __init__(self, seed, n_pairs, longest, same_length):
        random = torch.Generator().manual_seed(seed)
        n = 2 * n_pairs  # chosen first, then rejected
        self.n_pairs = n_pairs
        self.lengths = torch.randint(1, longest + 1, (n,), generator=random)
        if same_length:
            self.lengths[:n_pairs] = longest
        prompts = torch.randint(1, 10, (n,), generator=random)
        width = int((prompts + self.lengths).max())
        places = torch.arange(width)
        self.mask = ((places >= prompts[:, None]) & (places < (prompts + self.lengths)[:, None])).long()
        shares = (torch.rand((n, width - 1), generator=random) + 0.1) * self.mask[:, 1:]
        self.shares = shares / shares.sum(dim=1, keepdim=True)
        reference = -self.lengths * (0.2 + 3 * torch.rand(n, generator=random))
        # Near enough to the reference for every loss to have a slope somewhere, far enough for both of its ends.
        self.policy = reference + 8 * torch.randn(n, generator=random)
        self.reference = reference

    def sides(self, values):
        return values[: self.n_pairs], values[self.n_pairs :]


class Stub(torch.nn.Module):
    """Answers what the trainer reads of a model's output."""

    def __init__(self, per_token):
        super().__init__()
        zeros = torch.zeros_like(per_token)
        self.outputs = types.SimpleNamespace(
            log_probs=per_token, entropy=zeros, mean_logits=zeros, is_top1=zeros.bool(), log_sum_sq_probs=zeros
        )

    def forward(self, **_):
        return self.outputs


def by_trl(batch, losses, beta, smoothing):
    trainer = object.__new__(DPOTrainer)
    policy = batch.policy.clone().requires_grad_()
    trainer.model = Stub(policy[:, None] * batch.shares)
    trainer.accelerator = types.SimpleNamespace(
        device=torch.device("cpu"), gather=lambda x: x, gather_for_metrics=lambda x: x
    )
    trainer.args = types.SimpleNamespace(discopop_tau=TAU)
    trainer.aux_loss_enabled = trainer.use_weighting = False
    trainer.ld_alpha = None
    trainer.precompute_ref_logps = True
    trainer.f_divergence_type = "reverse_kl"
    trainer.beta, trainer.label_smoothing = beta, smoothing
    trainer.loss_types, trainer.loss_weights = list(losses), list(losses.values())
    trainer._metrics = {"train": defaultdict(list), "eval": defaultdict(list)}
    trainer._total_train_tokens, trainer._tp_size = 0, 1
    chosen, rejected = batch.sides(batch.reference)
    inputs = {
        "input_ids": torch.ones_like(batch.mask),
        "attention_mask": torch.ones_like(batch.mask),
        "completion_mask": batch.mask,
        "ref_chosen_logps": chosen,
        "ref_rejected_logps": rejected,
    }
    loss = trainer._compute_loss(trainer.model, inputs, False)
    loss.backward()
    assert loss.dtype == torch.float64
    return loss.detach(), policy.grad


def by_mrpo(url, batch, losses, beta, smoothing):
    names = [name for name in losses if name != "sft"]
    objective = {"beta": beta, "label_smoothing": smoothing, "discopop_tau": TAU, "sft_weight": losses.get("sft", 0.0)}
    # `sft_weight` is a term beside a loss; alone, it stands beside a loss that counts nothing.
    objective |= {"loss": names or "sigmoid", "loss_weights": [losses[name] for name in names] or [0.0]}
    columns = zip(*(x.tolist() for v in (batch.policy, batch.reference, batch.lengths) for x in batch.sides(v)), strict=True)
    pairs = [
        {
            "policy": {"chosen": policy_chosen, "rejected": policy_rejected},
            "references": {"chosen": [reference_chosen], "rejected": [reference_rejected]},
            "tokens": {"chosen": tokens_chosen, "rejected": tokens_rejected},
        }
        for policy_chosen, policy_rejected, reference_chosen, reference_rejected, tokens_chosen, tokens_rejected in columns
    ]
    body = json.dumps({"method": "dpo", "objective": objective, "pairs": pairs}).encode()
    request = urllib.request.Request(f"{url}/v1/objectives/evaluate", body, {"content-type": "application/json"})
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60) as response:
        answer = json.load(response)
    # TRL's loss is the batch's mean, and so are its gradients.
    gradients = [pair[f"grad_{side}"] / batch.n_pairs for side in ("chosen", "rejected") for pair in answer["pairs"]]
    return torch.tensor(answer["loss"]), torch.tensor(gradients)


def difference(ours, theirs):
    """Largest difference, relative to the largest number of theirs."""
    return float((ours - theirs).abs().max() / theirs.abs().max().clamp(min=1e-300))


def compare(url, losses, smoothing):
    worst = [0.0, 0.0]
    for beta in BETAS:
        for seed, (n_pairs, longest) in enumerate(BATCHES):
            batch = Batch(seed, n_pairs, longest, "sft" in losses)
            loss, gradient = by_trl(batch, losses, beta, smoothing)
            our_loss, our_gradient = by_mrpo(url, batch, losses, beta, smoothing)
            differences = difference(our_loss, loss), difference(our_gradient, gradient)
            assert all(x == x for x in differences), f"{losses}: not a number"
            worst = [max(pair) for pair in zip(worst, differences, strict=True)]
    return worst


@contextlib.contextmanager
def server(mrpo):
    with tempfile.TemporaryDirectory() as data_dir:
        command = [mrpo, "serve", "--listen", "127.0.0.1:0", "--data-dir", data_dir]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        try:
            yield next(word for line in process.stdout for word in line.split() if word.startswith("http://"))
        finally:
            process.terminate()
            process.wait(timeout=60)


def main():
    torch.set_default_dtype(torch.float64)
    arguments = sys.argv[1:]
    if len(arguments) == 2 and arguments[0] == "--url":
        running = contextlib.nullcontext(arguments[1].rstrip("/"))
    elif len(arguments) == 1 and not arguments[0].startswith("-"):
        running = server(arguments[0])
    else:
        sys.exit(__doc__)
    worst = [0.0, 0.0]
    with running as url:
        print(f"{'loss':<70} {'smoothing':>9} {'of the loss':>12} {'of gradients':>12}")
        for losses, smoothing in CASES:
            differences = compare(url, losses, smoothing)
            name = " + ".join(name if len(losses) == 1 else f"{weight:g} {name}" for name, weight in losses.items())
            print(f"{name:<70} {smoothing:>9g} {differences[0]:>12.1e} {differences[1]:>12.1e}")
            worst = [max(pair) for pair in zip(worst, differences, strict=True)]
    record("every loss of TRL, float64", "the loss", worst[0], LIMIT)
    record("every loss of TRL, float64", "its gradients by the log-probabilities", worst[1], LIMIT)
    sys.exit(max(worst) > LIMIT)


if __name__ == "__main__":
    main()
