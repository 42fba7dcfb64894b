"""Weight schemes: whole files add up to the sizes people measured."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchard.units import ROLES, FormatError, bytes_of, number_format, scheme, scheme_names, use_more_bits

GIB, MIB = 2**30, 2**20
Tensors = list[tuple[str, int | None, tuple[int, ...]]]  # role, layer, shape


def _size(name: str, tensors: Tensors, n_layers: int, **traits: int) -> int:
    s = scheme(name)
    return sum(bytes_of(s.format_for(role, layer, n_layers, shape, **traits), shape) for role, layer, shape in tensors)


def _llama(n_layers: int, d: int, ffn: int, vocab: int, kv: int) -> Tensors:
    tensors: Tensors = [("embedding", None, (vocab, d)), ("head", None, (vocab, d)), ("norm", None, (d,))]
    for i in range(n_layers):
        tensors += [("norm", i, (d,)), ("norm", i, (d,)), ("attn_q", i, (d, d)), ("attn_o", i, (d, d))]
        tensors += [("attn_k", i, (kv, d)), ("attn_v", i, (kv, d))]
        tensors += [("ffn_gate", i, (ffn, d)), ("ffn_up", i, (ffn, d)), ("ffn_down", i, (d, ffn))]
    return tensors


_LLAMA_2_7B = _llama(32, 4096, 11008, 32000, 4096)
_LLAMA_3_8B = _llama(32, 4096, 14336, 128256, 1024)
_LLAMA_3_70B = _llama(80, 8192, 28672, 128256, 1024)


@pytest.mark.parametrize(
    ("name", "tensors", "n_layers", "gqa", "gib"),
    [
        ("f16", _LLAMA_2_7B, 32, 1, 12.55),
        ("q8_0", _LLAMA_2_7B, 32, 1, 6.67),
        ("q4_0", _LLAMA_2_7B, 32, 1, 3.56),
        ("f16", _LLAMA_3_8B, 32, 4, 14.96),
        ("q4_k_m", _LLAMA_3_8B, 32, 4, 4.58),
        ("q4_k_m", _LLAMA_3_70B, 80, 8, 39.59),  # the 70B class spends q5_k on its value matrices
    ],
)
def test_file_sizes_of_llama(name, tensors, n_layers, gqa, gib):
    assert _size(name, tensors, n_layers, gqa=gqa) / GIB == pytest.approx(gib, abs=0.006)


@pytest.mark.parametrize(
    ("name", "mib"), [("q6_k", 1028.06), ("q5_0", 875.06), ("q4_k_m", 816.56), ("q3_k_m", 682.06), ("q2_k", 509.81)]
)
def test_weights_read_per_token_of_pythia(name, mib):
    """Buffer sizes of the llama.cpp CI log less the embedding table; this model has a fused qkv and biases."""
    d, ffn, n_layers = 2048, 8192, 24
    tensors: Tensors = [("head", None, (50304, d)), ("norm", None, (d,)), ("bias", None, (d,))]
    for i in range(n_layers):
        tensors += [("norm", i, (d,)), ("norm", i, (d,)), ("bias", i, (7 * d,)), ("bias", i, (ffn,))]
        tensors += [("attn_qkv", i, (3 * d, d)), ("attn_o", i, (d, d))]
        tensors += [("ffn_up", i, (ffn, d)), ("ffn_down", i, (d, ffn))]
    assert _size(name, tensors, n_layers) / MIB == pytest.approx(mib, abs=0.02)


def _qwen3_30b_a3b() -> Tensors:
    d, heads, kv, vocab, experts, ffn = 2048, 32 * 128, 4 * 128, 151936, 128, 768
    tensors: Tensors = [("embedding", None, (vocab, d)), ("head", None, (vocab, d)), ("norm", None, (d,))]
    for i in range(48):
        tensors += [("norm", i, (d,)), ("norm", i, (d,)), ("norm", i, (128,)), ("norm", i, (128,))]
        tensors += [("attn_q", i, (heads, d)), ("attn_k", i, (kv, d)), ("attn_v", i, (kv, d))]
        tensors += [("attn_o", i, (d, heads))]
        tensors += [("router", i, (experts, d)), ("expert_down", i, (experts, d, ffn))]
        tensors += [("expert_gate", i, (experts, ffn, d)), ("expert_up", i, (experts, ffn, d))]
    return tensors


def test_mixture_of_experts_file():
    """18.557 GB file; its header and vocabulary take the last 6 MB."""
    assert _size("q4_k_m", _qwen3_30b_a3b(), 48, n_experts=128, gqa=8) / 1e9 == pytest.approx(18.557, rel=1e-3)


def _gpt_oss_20b() -> Tensors:
    d, heads, kv, vocab, experts, ffn = 2880, 64 * 64, 8 * 64, 201088, 32, 2880
    tensors: Tensors = [("embedding", None, (vocab, d)), ("head", None, (vocab, d)), ("norm", None, (d,))]
    for i in range(24):
        tensors += [("norm", i, (d,)), ("norm", i, (d,)), ("bias", i, (64,)), ("bias", i, (heads + 2 * kv + d,))]
        tensors += [("attn_q", i, (heads, d)), ("attn_k", i, (kv, d)), ("attn_v", i, (kv, d))]
        tensors += [("attn_o", i, (d, heads))]
        tensors += [("router", i, (experts, d)), ("bias", i, (experts,)), ("bias", i, (experts, 3 * ffn))]
        tensors += [(role, i, (experts, ffn, d)) for role in ("expert_gate", "expert_up", "expert_down")]
    return tensors


def test_gpt_oss_file():
    """11.27 GiB: experts mxfp4, attention and both embeddings q8_0 although rows of 2880 are no multiple of 256."""
    assert _size("mxfp4", _gpt_oss_20b(), 24, n_experts=32, gqa=8) / GIB == pytest.approx(11.27, abs=0.01)


def test_use_more_bits_of_32_layers():
    chosen = [i for i in range(32) if use_more_bits(i, 32)]
    assert chosen == [0, 1, 2, 3, 6, 9, 12, 15, 18, 21, 24, 27, 28, 29, 30, 31]


@pytest.mark.parametrize(
    ("name", "role", "layer", "shape", "traits", "fmt"),
    [
        ("q4_k_m", "head", None, (32000, 4096), {}, "q6_k"),
        ("q4_k_m", "embedding", None, (32000, 4096), {}, "q4_k"),
        ("q4_k_m", "tied_head", None, (32000, 4096), {}, "q6_k"),
        ("q4_k_m", "per_layer_embedding", None, (32000, 256), {"tied": True}, "q6_k"),
        ("q4_k_m", "ffn_down", 0, (4096, 11008), {}, "q6_k"),
        ("q4_k_m", "ffn_down", 4, (4096, 11008), {}, "q4_k"),
        ("q4_k_m", "attn_v", 5, (1024, 4096), {"n_experts": 8}, "q8_0"),
        ("q4_k_m", "attn_o", 5, (4096, 4096), {"n_experts": 8}, "q5_k"),
        ("q4_k_m", "norm", 5, (4096,), {}, "f32"),
        ("q4_k_m", "router", 5, (128, 2048), {"n_experts": 128}, "f32"),
        ("q4_k_m", "attn_q", 5, (4096, 2880), {}, "q5_0"),  # 2880 = 90 x 32, no multiple of 256
        ("q6_k", "attn_q", 5, (4096, 2880), {}, "q8_0"),
        ("q5_k_m", "attn_q", 5, (4096, 2880), {}, "q5_1"),
        ("q2_k", "attn_q", 5, (4096, 2880), {}, "q4_0"),
        ("iq4_xs", "attn_q", 5, (4096, 2880), {}, "iq4_nl"),
        ("q4_k_m", "attn_q", 5, (64, 70), {}, "f16"),  # no multiple of 32 either
        ("q4_k_m", "head", None, (64, 2880), {}, "q8_0"),
        ("q4_k_s", "ffn_down", 3, (4096, 11008), {}, "q5_k"),
        ("q4_k_s", "ffn_down", 4, (4096, 11008), {}, "q4_k"),
        ("q3_k_m", "attn_v", 1, (4096, 4096), {}, "q5_k"),
        ("q3_k_l", "attn_v", 9, (4096, 4096), {}, "q5_k"),
        ("q2_k", "attn_v", 9, (1024, 4096), {"gqa": 4}, "q4_k"),
        ("q2_k", "attn_v", 9, (1024, 4096), {}, "q3_k"),
        ("iq4_xs", "attn_v", 9, (1024, 4096), {"gqa": 8}, "q5_k"),
        ("iq2_xxs", "head", None, (32000, 4096), {}, "q5_k"),
        ("iq2_m", "attn_o", 9, (4096, 4096), {}, "iq3_s"),
        ("iq2_xxs", "embedding", None, (32000, 4096), {}, "q2_k"),
        ("q8_0", "head", None, (32000, 4096), {}, "q8_0"),
        ("q4_0", "head", None, (32000, 4096), {}, "q6_k"),
        ("Q4_K_M", "attn_q", 9, (4096, 4096), {}, "q4_k"),
        ("mlx-4bit-g64", "head", None, (32000, 4096), {}, "int4-g64"),
        ("mlx-4bit-g64", "router", 1, (128, 2048), {"n_experts": 128}, "int8-g64"),
        ("mlx-4bit-g64", "norm", 1, (2048,), {}, "f16"),
        ("mlx-4bit-g64", "attn_q", 1, (64, 100), {}, "f16"),
        ("mlx-mixed-4/6bit", "ffn_down", 0, (4096, 11008), {}, "int6-g64"),
        ("mlx-mixed-4/6bit", "ffn_down", 4, (4096, 11008), {}, "int4-g64"),
        ("mlx-mixed-4/6bit", "head", None, (4096, 11008), {}, "int6-g64"),
        ("mxfp4+mlx-8bit", "expert_up", 1, (32, 2880, 2880), {"n_experts": 32}, "mxfp4"),
        ("mxfp4+mlx-8bit", "attn_q", 1, (4096, 2880), {"n_experts": 32}, "int8-g64"),
        ("mxfp4", "expert_up", 1, (32, 2880, 2880), {"n_experts": 32}, "mxfp4"),
        ("mxfp4", "attn_q", 1, (4096, 2880), {"n_experts": 32}, "q8_0"),
        ("mxfp4", "attn_q", 1, (4096, 4096), {}, "mxfp4"),
        ("apple-2bit-qat", "tied_head", None, (150000, 2048), {}, "int4-channel"),
        ("coreml-4bit-mixed", "ffn_up", 3, (11008, 4096), {}, "pal4"),
        ("coreml-4bit-mixed", "head", None, (32000, 4096), {}, "f16"),
        ("nvfp4", "tied_head", None, (262144, 3840), {}, "bf16"),
        ("nvfp4", "head", None, (262144, 3840), {}, "nvfp4"),
        ("mlx-nvfp4", "tied_head", None, (262144, 3840), {}, "nvfp4"),
        ("mlx-mxfp4", "attn_q", 1, (4096, 2880), {"n_experts": 32}, "mxfp4"),
        ("mlx-bf16", "attn_q", 1, (4096, 2880), {}, "bf16"),
        ("q4_k_l", "embedding", None, (32000, 4096), {}, "q8_0"),
        ("w8a8", "attn_q", 1, (64, 100), {}, "int8-channel"),
        ("coreml-pal4", "attn_q", 1, (64, 100), {}, "pal4"),
        ("ud-q4_k_m", "attn_q", 3, (4096, 2048), {"n_experts": 256}, "q8_0"),
        ("ud-q4_k_m", "expert_up", 3, (256, 512, 2048), {"n_experts": 256}, "q4_k"),
        ("q4_k_s_r4", "attn_q", 9, (4096, 4096), {}, "q4_k_r4"),
        ("q4_k_s_r4", "embedding", None, (32000, 4096), {}, "q4_k"),
        ("q8_k_r8", "attn_q", 9, (4096, 4096), {}, "q8_k_r8"),
        ("iq1_s_r4", "attn_q", 9, (4096, 4096), {}, "iq1_s_r4"),
        ("pal4", "attn_q", 9, (4096, 4096), {}, "pal4"),
        ("int8-channel", "bias", 9, (4096,), {}, "f16"),
        ("bf16", "norm", 9, (4096,), {}, "bf16"),
    ],
)  # fmt: skip
def test_format_of_one_tensor(name, role, layer, shape, traits, fmt):
    assert scheme(name).format_for(role, layer, 32, shape, **traits) == number_format(fmt)


_MEASURED = [
    "apple-2bit-qat", "bf16", "coreml-4bit-mixed", "coreml-int4-palettized", "coreml-lut6", "f16", "iq2_xxs",
    "iq4_nl", "iq4_nl_r4", "iq4_xs", "iq4_xs_r4", "mlx-4bit-g64", "mlx-mixed-4/6bit", "mxfp4", "mxfp4+mlx-8bit",
    "nvfp4", "q2_k", "q3_k_m", "q3_k_s", "q3_k_s_r4", "q4_0", "q4_0_r4", "q4_1", "q4_k_m", "q4_k_s", "q4_k_s_r4",
    "q5_0", "q5_0_r4", "q5_k_m", "q5_k_s", "q5_k_s_r4", "q6_0", "q6_0_r4", "q6_k", "q6_k_r4", "q8_0", "q8_0_r4",
    "q8_k_r8", "ud-q4_k_m",
]  # fmt: skip
_NEIGHBOURS = [
    "q2_k_s", "q3_k_l", "q4_k", "q5_k", "q5_1", "iq1_s", "iq1_m", "iq2_xs", "iq2_s", "iq2_m", "iq3_xxs", "iq3_xs",
    "iq3_s", "iq3_m", "tq1_0", "tq2_0", "mlx-3bit-g64", "mlx-6bit-g64", "mlx-8bit-g64", "mlx-8bit", "4bit",
    "mlx-mixed-3/6bit", "f32", "mlx-bf16", "mlx-f16", "ud-q2_k", "q4_k_xl", "ud-q4_k_xl", "mxfp8", "coreml-f16",
    "w8a8",
]  # fmt: skip


@pytest.mark.parametrize("name", sorted({*_MEASURED, *_NEIGHBOURS, *scheme_names()}))
def test_every_name_gives_every_role_a_format_that_fits(name):
    s = scheme(name)
    assert scheme(name.upper()).name == s.name
    for role in ROLES:
        for shape in ((4096,), (100, 4096), (100, 2880), (100, 70), (8, 100, 768)):
            for layer in (None, 0, 17, 31):
                fmt = s.format_for(role, layer, 32, shape, n_experts=8, gqa=4)
                assert bytes_of(fmt, shape) > 0


@given(st.sampled_from(["q4_k_m", "q5_k_m", "q3_k_m"]), st.integers(1, 200), st.integers(0, 199))
def test_a_mixture_never_spends_less_than_its_small_sister(name, n_layers, layer):
    small = name.removesuffix("m") + "s"
    for role in ("attn_v", "attn_k", "ffn_down", "head", "embedding", "attn_o"):
        if name == "q4_k_m" and role in ("attn_v", "ffn_down"):
            continue  # q4_k_s spends q5_k on its first layers
        large = scheme(name).format_for(role, min(layer, n_layers - 1), n_layers, (4096, 4096))
        assert large.bits >= scheme(small).format_for(role, min(layer, n_layers - 1), n_layers, (4096, 4096)).bits


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("q4_k_n", "weight format 'q4_k_n' is not known; did you mean q4_k, q4_k_m or q4_k_s?"),
        ("q9", "expected one such as f16, q8_0, q4_k_m, mlx-4bit-g64 or pal4"),
        ("x" * 10_000, "expected one such as"),
        ("", "weight format '' is not known"),
        ("mlx-mixed-9/9bit", "not known"),
        ("mxfp4+mlx-9bit", "not known"),
    ],
)
def test_unknown_scheme(name, message):
    with pytest.raises(FormatError) as caught:
        scheme(name)
    assert message in str(caught.value)
    assert len(str(caught.value)) < 220


def test_unknown_role():
    with pytest.raises(FormatError, match="tensor role 'ffn_dwn' is not known; did you mean ffn_down"):
        scheme("f16").format_for("ffn_dwn", 0, 1, (4, 4))


def test_importing_units_is_light():
    code = "import sys, orchard.units; print(sorted({'numpy', 'yaml', 'scipy', 'sympy'} & set(sys.modules)))"
    environment = {"PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.strip() == "[]"
