"""A bidirectional transformer written from the papers' equations; shares no code with the package.

Weights of a block go by LLaDA's names; `q_bias`, `k_bias` and `v_bias` may be added.
"""

from __future__ import annotations

import torch


def rms_norm(x, weight, eps):
    """RMSNorm, arXiv:1910.07467: x / sqrt(mean(x^2) + eps) * g."""
    return x / (x.square().mean(-1, keepdim=True) + eps).sqrt() * weight


def rotate(x, theta):
    """RoPE, arXiv:2104.09864, over halves: pair (i, i + d/2) turns by position / theta^(2i/d)."""
    half = x.shape[-1] // 2
    frequency = theta ** (-torch.arange(half, dtype=torch.float64) / half)
    angle = torch.arange(x.shape[-2], dtype=torch.float64)[:, None] * frequency
    cos, sin = angle.cos().float(), angle.sin().float()
    first, second = x[..., :half], x[..., half:]
    return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)


def attend(x, block, heads, kv_heads, theta):
    """Softmax attention over every position, before and after; groups of heads share keys and values."""
    length = x.shape[0]
    query, key, value = (
        (x @ block[f"{name}_proj"].T + block.get(f"{name}_bias", 0)).view(length, count, -1).transpose(0, 1)
        for name, count in (("q", heads), ("k", kv_heads), ("v", kv_heads))
    )
    key, value = (each.repeat_interleave(heads // kv_heads, 0) for each in (key, value))
    scores = rotate(query, theta) @ rotate(key, theta).transpose(1, 2) / query.shape[-1] ** 0.5
    return (scores.softmax(-1) @ value).transpose(0, 1).reshape(length, -1) @ block["attn_out"].T


def reference(ids, blocks, embedding, norm, head, *, heads, kv_heads, theta, eps):
    """Logits of one sequence: pre-norm attention and SwiGLU (arXiv:2002.05202), no causal mask."""
    x = embedding[ids]
    for block in blocks:
        x = x + attend(rms_norm(x, block["attn_norm"], eps), block, heads, kv_heads, theta)
        inner = rms_norm(x, block["ff_norm"], eps)
        gate = inner @ block["ff_proj"].T
        x = x + (gate * gate.sigmoid() * (inner @ block["up_proj"].T)) @ block["ff_out"].T
    return rms_norm(x, norm, eps) @ head.T
