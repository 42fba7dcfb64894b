"""Products of kernels in canonical form: equal MACs, equal text for equal work, and who pays at DRAM."""

import pytest

from orchard.ir import Builder
from orchard.studies.map_problems import Products
from orchard.studies.predict import make_plan
from orchard.studies.request import Request


def parts(model, engine="gpu", phase="prefill", call=0, on_chip=8 << 20, stay=False, **options):
    plan = make_plan(Request(model=model, chip="m4", engine=engine, **options))
    graph = plan.graph_of(phase)
    products = Products(graph, on_chip, weights_stay=stay)
    bindings = plan.phases[phase][call].bindings
    table = plan.table_of(phase)
    counts = table.evaluate(bindings)
    return [(k, counts, i, products.parts(k, bindings)) for i, k in enumerate(table.kernels)]


@pytest.mark.parametrize(
    ("model", "engine", "phase"),
    [
        ("llama-3.1-8b-instruct", "gpu", "prefill"),
        ("llama-3.1-8b-instruct", "gpu", "decode"),
        ("qwen3-30b-a3b", "gpu", "prefill"),
        ("resnet50", "ane", "inference"),
        ("mobilenet-v2-1.0", "ane", "inference"),
        ("whisper", "gpu", "decode"),
    ],
)
def test_the_macs_of_the_kernels_are_those_of_their_products(model, engine, phase):
    for kernel, counts, i, found in parts(model, engine, phase):
        if not found:
            assert kernel.kind in ("vector", "scan")
            continue
        macs = sum(p.problem.macs * p.times * p.density for p in found)
        assert macs == pytest.approx(counts.macs[i], rel=0.01 if kernel.kind == "expert" else 1e-9)


def test_equal_work_has_equal_text_and_masks_thin_it():
    found = {k.name: p for k, _, _, p in parts("llama-3.1-8b-instruct")}
    assert found["layers.0.attn.q"][0].text == found["layers.0.attn.o"][0].text == "gemm:m=512,k=4096,n=4096"
    scores, values = found["layers.0.attn.scores"]
    assert (scores.text, values.text) == ("gemm:b=8,m=2048,k=128,n=512", "gemm:b=8,m=2048,k=512,n=128")
    assert scores.density == (512 * 513 / 2) / 512**2


def test_who_crosses_the_outermost_port():
    found = {k.name: p for k, _, _, p in parts("llama-3.1-8b-instruct", on_chip=8 << 20)}
    (down,) = found["layers.0.ffn.down"]  # its input of 14.7 MB is too large to stay
    assert down.problem.resident == {"C"}
    scores, values = found["layers.0.attn.scores"]  # keys and values are a cache; scores stay inside the kernel
    assert scores.problem.resident == {"A", "C"}
    assert values.problem.resident == {"A", "C"}
    small = {k.name: p for k, _, _, p in parts("llama-3.1-8b-instruct", stay=True)}
    assert "B" in small["layers.0.attn.q"][0].problem.resident


def test_widths_are_those_of_the_formats():
    found = {k.name: p for k, _, _, p in parts("llama-3.1-8b-instruct", weights="q4_k_m")}
    (gate,) = found["layers.0.ffn.gate"]
    assert gate.problem.bits == {"A": 16.0, "B": 4.5, "C": 16.0}
    assert gate.bits == 16


def test_convolutions_keep_stride_groups_and_images():
    found = [p for _, _, _, p in parts("mobilenet-v2-1.0", "ane", "inference", batch=2) if p]
    texts = {p.text for (p,) in found}
    assert "conv:n=2,c=3,k=32,p=112,q=112,r=3,s=3,stride=2" in texts
    assert "conv:n=2,c=32,k=32,p=112,q=112,r=3,s=3,groups=32" in texts


def test_a_weight_that_comes_first_is_still_the_weight():
    b = Builder("g", symbols=())
    x, w = b.input("x", (4, 8)), b.weight("w", (16, 8), part="w")
    y = b.einsum("n k, m k -> m n", w, x, name="y")
    graph = b.build([y])
    from orchard.cost.lower import Lowering, lower

    (kernel,) = lower(graph, Lowering()).kernels
    (part,) = Products(graph, 0.0, weights_stay=False).parts(kernel, {})
    assert part.text == "gemm:m=4,k=8,n=16"
