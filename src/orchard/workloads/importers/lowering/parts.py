"""What a weight is for, told from its name."""

from __future__ import annotations

import re
from collections.abc import Sequence

from orchard.ir import Size

_PARTS: tuple[tuple[str, str], ...] = (
    (r"(lm_head|output_projection|classifier|score|head|fc)\.weight$|^output\.weight$", "head"),
    (r"(pos|position)[\w]*(emb|enc)", "position_embedding"),
    (r"(embed_tokens|word_embeddings|wte|token_embd|embedding|embeddings|shared|tok_embeddings)\b.*weight$",
    "embedding"),
    (r"experts.*gate_up_proj|experts.*w13", "expert_gate_up"),
    (r"experts.*(gate_proj|w1\b)", "expert_gate"),
    (r"experts.*(down_proj|w2\b)", "expert_down"),
    (r"experts.*(up_proj|w3\b)", "expert_up"),
    (r"shared_expert.*gate_proj", "shared_gate"),
    (r"shared_expert.*up_proj", "shared_up"),
    (r"shared_expert.*down_proj", "shared_down"),
    (r"(mlp|block_sparse_moe|feed_forward)\.(gate|router)\b", "router"),
    (r"(qkv|c_attn|query_key_value|in_proj_weight|Wqkv)", "attn_qkv"),
    (r"(q_proj|q_lin|query|to_q|wq|\.q\b|\bq\b|attn_q)", "attn_q"),
    (r"(k_proj|k_lin|\bkey|to_k|wk|\.k\b|\bk\b|attn_k)", "attn_k"),
    (r"(v_proj|v_lin|value|to_v|wv|\.v\b|\bv\b|attn_v)", "attn_v"),
    (r"(o_proj|out_proj|out_lin|to_out|attention\.output|attn\.proj|attn\.c_proj|wo|attn_output|\.o\b)", "attn_o"),
    (r"(gate_up_proj)", "ffn_gate_up"),
    (r"(gate_proj|ffn_gate)", "ffn_gate"),
    (r"(up_proj|c_fc|fc1|lin1|intermediate|wi\b|ffn_up|dense_h_to_4h)", "ffn_up"),
    (r"(down_proj|mlp\.c_proj|fc2|lin2|output\.dense|wo\b|ffn_down|dense_4h_to_h)", "ffn_down"),
)  # fmt: skip
_PART_RULES = tuple((re.compile(pattern, re.I), part) for pattern, part in _PARTS)


def part_of(name: str, shape: Sequence[Size]) -> str:
    """What a weight is for, from its name and number of axes: the roles of `orchard.units`."""
    if len(shape) <= 1:
        return "bias" if name.endswith("bias") else "norm" if re.search(r"norm|ln|bn", name, re.I) else "bias"
    for pattern, part in _PART_RULES:
        if pattern.search(name):
            return part
    return "conv" if len(shape) >= 3 else "other"


def layer_of(name: str) -> int | None:
    """The first number in a dotted name that stands alone: `model.layers.3.mlp` is layer 3."""
    match = re.search(r"(?:^|[./])(?:layers?|h|blocks?|blk|encoder|decoder)[./_](\d{1,4})(?=[./_])", name)
    return int(match.group(1)) if match else None
