"""Summed completion log-probabilities by transformers, with prompts rendered the way mrpo renders them."""

import json

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

END_OF_TURN = "<|im_end|>"


def read_pairs(path, limit=None):
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line, _ in zip(file, range(limit) if limit else iter(int, 1))]


def load(directory):
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32, attn_implementation="eager")
    return AutoTokenizer.from_pretrained(directory), model.eval()


def render_prompt(tokenizer, prompt):
    """The chat template with the generation prompt; a text is one user turn."""
    messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)


def completion_text(completion):
    text = completion if isinstance(completion, str) else completion[-1]["content"]
    return text + END_OF_TURN


def token_ids(tokenizer, prompt, completion):
    """Prompt and completion are tokenized apart, so that the completion's first token does not depend on the prompt."""
    head = tokenizer(render_prompt(tokenizer, prompt), add_special_tokens=False)["input_ids"]
    tail = tokenizer(completion_text(completion), add_special_tokens=False)["input_ids"]
    return head, tail


@torch.no_grad()
def logp(model, head, tail):
    """Sum of log p(token | everything before it) over the completion's tokens."""
    logits = model(torch.tensor([head + tail])).logits[0, len(head) - 1 : -1].double()
    picked = torch.log_softmax(logits, -1).gather(1, torch.tensor(tail)[:, None])
    return picked.sum().item()
