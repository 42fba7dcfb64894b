"""Built-in models: parameter counts against the independent figures kept beside the dimensions, names, refusals."""

from __future__ import annotations

import pytest

from orchard.ir import Graph, Role, Tensor, bind
from orchard.workloads import ModelError, catalog, load_model, model_names

UNPUBLISHED = {"openbmb/MiniCPM5-1B"}
PUBLISHED = [name for name in model_names() if name not in UNPUBLISHED]


def counted(weight: Tensor) -> bool:
    """What `computed` counts: matrices and expert biases; no norms, vectors or other biases."""
    if weight.name.rpartition(".")[2].startswith("b_expert"):
        return True
    return weight.part not in ("norm", "bias") and len(weight.shape) >= 2


def matrices(graph: Graph) -> int:
    return sum(bind(w.elements, {}) for w in graph.weights if counted(w))


def active_matrices(graph: Graph) -> int:
    """Matrices read to decode one token: of routed experts the chosen ones, of looked-up tables nothing."""
    total = 0
    seen: set[str] = set()
    for op in graph.ops:
        if op.kind not in ("einsum", "scan"):
            continue
        for tensor in graph.inputs_of(op):
            if tensor.name in seen or tensor.role is not Role.WEIGHT or len(tensor.shape) < 2:
                continue
            seen.add(tensor.name)
            elements = bind(tensor.elements, {})
            if "routed" in op.attrs and tensor.part.startswith("expert"):
                elements = elements // int(op.attrs["routed"]) * int(op.attrs["active"])  # type: ignore[arg-type]
            total += elements
    return total


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameter_counts_match_the_independent_figures(name):
    entry = catalog.entry(name)
    model = load_model(name)
    graph = model.graph()
    readers = graph.readers()
    computed = entry.notes.get("computed")
    if computed is not None:
        # the figures have four decimals, and count the (tiny) depthwise convolutions of some families only
        total, active = computed["total_params_b"], computed["active_matmul_params_b"]
        assert matrices(graph) / 1e9 == pytest.approx(total, abs=6e-5 + 2e-5 * total)
        # ... and the matrices that Gemma 4 E files hold for layers that never read them
        unread = sum(
            bind(w.elements, {}) for w in graph.weights if w.part in ("attn_k", "attn_v") and not readers[w.name]
        )
        assert (active_matrices(graph) + unread) / 1e9 == pytest.approx(active, abs=6e-5 + 2e-4 * active)
    if entry.notes["params_b"] is not None:
        assert model.params / 1e9 == pytest.approx(entry.notes["params_b"], rel=0.01)


@pytest.mark.parametrize("name", sorted(UNPUBLISHED))
def test_an_unpublished_model_is_listed_but_has_no_graph(name):
    with pytest.raises(ModelError, match="dimensions are not published"):
        load_model(name)


def test_second_hand_dimensions_come_with_a_warning():
    model = load_model("apple/on-device-foundation-model-3B")
    assert "not published by Apple" in model.warnings[0]
    assert model.default_weights == "apple-2bit-qat"
    assert model.params == pytest.approx(3.18e9 - 66.6e6, rel=0.002)  # the toolkit's total less its adapters


@pytest.mark.parametrize(
    ("alias", "full"),
    [
        ("llama-3.1-8b", "meta-llama/Llama-3.1-8B-Instruct"),
        ("llama-3-8b", "meta-llama/Meta-Llama-3-8B"),
        ("llama-2-7b", "meta-llama/Llama-2-7b-hf"),
        ("qwen3-4b", "Qwen/Qwen3-4B"),
        ("QWEN/qwen3-4b", "Qwen/Qwen3-4B"),
        ("gemma-3-4b", "google/gemma-3-4b-it"),
        ("gpt2", "openai-community/gpt2"),
        ("phi-2", "microsoft/phi-2"),
        ("tinyllama-1.1b", "TinyLlama/TinyLlama-1.1B-Chat-v1.0"),
        ("mistral-7b", "mistralai/Mistral-7B-Instruct-v0.3"),
        ("mistral-7b-v0.1", "mistralai/Mistral-7B-v0.1"),
        ("gpt-oss-20b", "openai/gpt-oss-20b"),
        ("bert-base-uncased", "google-bert/bert-base-uncased"),
        ("vit-base-patch16-224", "google/vit-base-patch16-224"),
        ("whisper-large-v3-turbo", "openai/whisper-large-v3-turbo"),
        ("nemotron-3-nano-30b-a3b", "nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B"),
    ],
)
def test_short_names(alias, full):
    assert load_model(alias).name == full


def test_every_model_has_a_short_name_that_leads_back():
    for name in model_names():
        assert catalog.find(catalog.short_name(name))[0] == name


def test_an_unknown_name_suggests_the_nearest():
    with pytest.raises(ModelError, match=r"'lama-3\.1-8b' is not known; did you mean llama-3\.1-8b"):
        load_model("lama-3.1-8b")
