"""PyTorch's rates for the products and the attention that `mrpo check-device` measures: what to compare with."""

import time

import torch
import torch.nn.functional as F

SHAPES = [(576, 1536, 49_152), (2048, 8192, 128_256), (4096, 11_008, 32_000)]
TOKENS = 4096


def seconds(call):
    """Seconds of a call, the mean of half a second of them."""
    call()
    torch.cuda.synchronize()
    begin, n = time.perf_counter(), 0
    while time.perf_counter() - begin < 0.5:
        for _ in range(4):
            call()
        n += 4
        torch.cuda.synchronize()
    return (time.perf_counter() - begin) / n


def products(dtype):
    for d, inner, vocabulary in SHAPES:
        for m, k, n in [(TOKENS, d, d), (TOKENS, d, inner), (TOKENS, inner, d), (TOKENS // 4, d, vocabulary)]:
            x, w = torch.randn(m, k, device="cuda", dtype=dtype), torch.randn(n, k, device="cuda", dtype=dtype)
            taken = seconds(lambda x=x, w=w: F.linear(x, w))
            print(f"{dtype} product {m} x {k} x {n}: {taken * 1e6:.1f} us, {2 * m * k * n / taken / 1e12:.2f} TFLOP/s", flush=True)


def attention(dtype):
    for n_tokens, n_sequences in [(512, 32), (4096, 4)]:
        shape = lambda heads: (n_sequences, heads, n_tokens, 64)  # noqa: E731
        q, k, v = (torch.randn(shape(heads), device="cuda", dtype=dtype, requires_grad=True) for heads in (32, 8, 8))
        d_output = torch.randn(shape(32), device="cuda", dtype=dtype)

        def both(q=q, k=k, v=v, d_output=d_output):
            F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True).backward(d_output)

        taken = seconds(both)
        rate = 7 * n_sequences * n_tokens**2 * 32 * 64 / taken / 1e12
        print(f"{dtype} attention {n_sequences} x {n_tokens} tokens: {taken * 1e3:.3f} ms, {rate:.2f} TFLOP/s", flush=True)


print(torch.__version__, torch.cuda.get_device_name())
for chosen in (torch.bfloat16, torch.float32):
    products(chosen)
    attention(chosen)
