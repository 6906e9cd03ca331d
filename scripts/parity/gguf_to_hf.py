#!/usr/bin/env python3
"""Turns a llama GGUF file into a Hugging Face directory in float32, so that transformers computes with the very weights mrpo uses.

usage: gguf_to_hf.py MODEL.gguf DIR
"""

import json
import sys
from pathlib import Path

import gguf
import numpy as np
import torch
from gguf.quants import dequantize
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

LAYER_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
TOP_NAMES = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
CONTROL = 3  # token_type of a special token


def hf_name(name):
    stem = name.removesuffix(".weight")
    if stem in TOP_NAMES:
        return f"{TOP_NAMES[stem]}.weight"
    _, layer, part = stem.split(".")
    return f"model.layers.{layer}.{LAYER_NAMES[part]}.weight"


def unpermute(weight, n_heads):
    """GGUF stores q and k with each head's rotary pairs side by side; transformers wants the two halves of a head apart."""
    rows, columns = weight.shape
    return weight.reshape(n_heads, rows // n_heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)


def read_weights(reader, config):
    weights = {}
    for tensor in reader.tensors:
        value = dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        if ".attn_q." in tensor.name:
            value = unpermute(value, config["num_attention_heads"])
        elif ".attn_k." in tensor.name:
            value = unpermute(value, config["num_key_value_heads"])
        weights[hf_name(tensor.name)] = torch.from_numpy(np.ascontiguousarray(value))
    return weights


def read_config(field, names):
    def llama(key):
        return field(f"llama.{key}")

    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": llama("embedding_length"),
        "intermediate_size": llama("feed_forward_length"),
        "num_hidden_layers": llama("block_count"),
        "num_attention_heads": llama("attention.head_count"),
        "num_key_value_heads": llama("attention.head_count_kv"),
        "max_position_embeddings": llama("context_length"),
        "rms_norm_eps": llama("attention.layer_norm_rms_epsilon"),
        "rope_parameters": {"rope_type": "default", "rope_theta": llama("rope.freq_base")},
        "vocab_size": llama("vocab_size"),
        "tie_word_embeddings": "output.weight" not in names,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "bos_token_id": field("tokenizer.ggml.bos_token_id"),
        "eos_token_id": field("tokenizer.ggml.eos_token_id"),
        "pad_token_id": field("tokenizer.ggml.padding_token_id"),
        "torch_dtype": "float32",
    }


def read_tokenizer(field):
    """Byte-level BPE; the pre-tokenizer "smollm" splits digits one by one before GPT-2's pattern."""
    model, pre = field("tokenizer.ggml.model"), field("tokenizer.ggml.pre")
    if (model, pre) != ("gpt2", "smollm"):
        sys.exit(f"tokenizer {model}/{pre}: this script knows gpt2/smollm only")
    tokens = field("tokenizer.ggml.tokens")
    merges = [tuple(merge.split(" ")) for merge in field("tokenizer.ggml.merges")]
    tokenizer = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=merges))
    digits = pre_tokenizers.Digits(individual_digits=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.decoder = decoders.ByteLevel()
    special = [t for t, kind in zip(tokens, field("tokenizer.ggml.token_type")) if kind == CONTROL]
    tokenizer.add_special_tokens(special)
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": tokens[field("tokenizer.ggml.bos_token_id")],
        "eos_token": tokens[field("tokenizer.ggml.eos_token_id")],
        "pad_token": tokens[field("tokenizer.ggml.padding_token_id")],
        "clean_up_tokenization_spaces": False,
        "chat_template": field("tokenizer.chat_template"),
    }
    return tokenizer, settings


def main():
    source, target = sys.argv[1], Path(sys.argv[2])
    reader = gguf.GGUFReader(source)

    def field(key):
        return reader.fields[key].contents()

    target.mkdir(parents=True, exist_ok=True)
    config = read_config(field, {t.name for t in reader.tensors})
    tokenizer, settings = read_tokenizer(field)
    tokenizer.save(str(target / "tokenizer.json"))
    (target / "config.json").write_text(json.dumps(config, indent=2))
    (target / "tokenizer_config.json").write_text(json.dumps(settings, indent=2))
    save_file(read_weights(reader, config), str(target / "model.safetensors"), metadata={"format": "pt"})
    print(f"{target}: {len(reader.tensors)} tensors in float32")


if __name__ == "__main__":
    main()
