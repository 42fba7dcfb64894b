"""What every technique with a cost rule keeps; a plug-in subclasses `TechniqueContract` in its own tests.

class TestMine(TechniqueContract):
    techniques = (Mine(), Mine(share=0.25))

    def expected_macs(self, technique, before):   # only where they change: by another way than the pass takes
        return macs_of_graph(before) * technique.share
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import fields
from typing import ClassVar

from orchard.ir import Graph, bind, parse_graph, print_graph, verify
from orchard.ir.count import macs
from orchard.techniques.base import GraphPass, Technique, Value
from orchard.techniques.cards import card_of
from orchard.techniques.errors import TechniqueError
from orchard.techniques.plugins import RATED, card_problem, shape_problem
from orchard.techniques.registry import read_options

DECODER = """graph "decoder" (B, T, S)
%x: f16[B, T, 512] = input
%layers.0.n: f16[512] = weight part=norm layer=0
%layers.0.wq: f16[512, 8, 1, 64] = weight part=attn_q layer=0
%layers.0.wk: f16[512, 8, 64] = weight part=attn_k layer=0
%layers.0.wv: f16[512, 8, 64] = weight part=attn_v layer=0
%layers.0.wo: f16[8, 1, 64, 512] = weight part=attn_out layer=0
%layers.0.kc: f16[B, S, 8, 64] = state part=k_cache layer=0
%layers.0.vc: f16[B, S, 8, 64] = state part=v_cache layer=0
%layers.0.w1: f16[512, 1024] = weight part=ffn_up layer=0
%layers.0.w2: f16[1024, 512] = weight part=ffn_down layer=0
%h: f16[B, T, 512] = norm(%x, %layers.0.n) fn="rmsnorm" @layers.0.attn
%q: f16[B, T, 8, 1, 64] = einsum(%h, %layers.0.wq) spec="b t m, m g r d -> b t g r d" @layers.0.attn
%k: f16[B, T, 8, 64] = einsum(%h, %layers.0.wk) spec="b t m, m g d -> b t g d" @layers.0.attn
%v: f16[B, T, 8, 64] = einsum(%h, %layers.0.wv) spec="b t m, m g d -> b t g d" @layers.0.attn
%ku: f16[B, S, 8, 64] = update(%layers.0.kc, %k) @layers.0.attn
%vu: f16[B, S, 8, 64] = update(%layers.0.vc, %v) @layers.0.attn
%s: f16[B, 8, 1, T, S] = einsum(%q, %ku) spec="b t g r d, b s g d -> b g r t s" pairs={T*S} @layers.0.attn
%p: f16[B, 8, 1, T, S] = softmax(%s) pairs={T*S} @layers.0.attn
%o: f16[B, T, 8, 1, 64] = einsum(%p, %vu) spec="b g r t s, b s g d -> b t g r d" pairs={T*S} @layers.0.attn
%a: f16[B, T, 512] = einsum(%o, %layers.0.wo) spec="b t g r d, g r d m -> b t m" @layers.0.attn
%r: f16[B, T, 512] = elementwise(%x, %a) fn="add" @layers.0.attn
%u: f16[B, T, 1024] = einsum(%r, %layers.0.w1) spec="b t m, m n -> b t n" @layers.0.ffn
%g: f16[B, T, 1024] = elementwise(%u) fn="gelu" @layers.0.ffn
%y: f16[B, T, 512] = einsum(%g, %layers.0.w2) spec="b t n, n m -> b t m" @layers.0.ffn
return %y
"""
CONVOLUTION = """graph "convolution" (B)
%x: f16[B, 32, 16, 16] = input
%w: f16[64, 32, 3, 3] = weight part=conv
%y: f16[B, 64, 14, 14] = einsum(%x, %w) spec="n c (p+r) (q+s), k c r s -> n k p q"
return %y
"""
NOTHING = """graph "nothing" (B)
%x: f16[B, 64] = input
%y: f16[B, 64] = elementwise(%x) fn="gelu"
return %y
"""
SIZES = {"B": 3, "T": 7, "S": 101}
"""Odd and different, so that no two counts agree by chance."""


def macs_of_graph(graph: Graph) -> int:
    """Multiply-accumulates at SIZES."""
    return bind(macs(graph), SIZES)


def weights_of_graph(graph: Graph) -> int:
    """Elements of all weights, in whatever format."""
    return sum(math.prod(bind(size, SIZES) for size in w.shape) for w in graph.weights)


class TechniqueContract:
    """Tests by pytest, in milliseconds. `graphs` are texts; each technique must apply to one of them at least."""

    techniques: ClassVar[tuple[GraphPass, ...]] = ()
    graphs: ClassVar[tuple[str, ...]] = (DECODER, CONVOLUTION)
    nothing: ClassVar[str] = NOTHING
    """A graph in which the technique finds nothing to change."""

    def expected_macs(self, technique: GraphPass, before: Graph) -> float:  # noqa: ARG002 - for those that change them
        """Multiply-accumulates after the technique, at SIZES."""
        return macs_of_graph(before)

    def expected_weights(self, technique: GraphPass, before: Graph) -> float:  # noqa: ARG002
        """Elements of all weights after the technique."""
        return weights_of_graph(before)

    def _each(self) -> Iterator[GraphPass]:
        assert self.techniques, "give `techniques`: instances of the technique to test"
        yield from self.techniques

    def _applied(self, technique: GraphPass) -> list[tuple[Graph, Graph]]:
        """(before, after) of the graphs that it applies to."""
        found = []
        for text in self.graphs:
            before = parse_graph(text)
            try:
                found.append((before, technique.apply(before)))
            except TechniqueError as error:
                assert _says_why(technique, error), f"{technique}: a refusal without a reason: {error}"
        assert found, f"{technique} applies to none of the graphs; give `graphs`"
        return found

    def test_counts_are_what_they_should_be(self) -> None:
        for technique in self._each():
            for before, after in self._applied(technique):
                assert macs_of_graph(after) == self.expected_macs(technique, before), f"{technique} on {before.name}: MACs"
                assert weights_of_graph(after) == self.expected_weights(technique, before), f"{technique}: weights"

    def test_something_changes_and_the_interface_does_not(self) -> None:
        for technique in self._each():
            for before, after in self._applied(technique):
                verify(after)
                assert print_graph(after) != print_graph(before), f"{technique} changes nothing and does not say so"
                assert print_graph(parse_graph(print_graph(after))) == print_graph(after), technique
                assert after.symbols == before.symbols, technique
                assert _interface(after) == _interface(before), f"{technique} changes inputs or outputs of the model"

    def test_the_same_graph_gives_the_same_graph(self) -> None:
        for technique in self._each():
            for before, after in self._applied(technique):
                text = print_graph(before)
                assert print_graph(technique.apply(before)) == print_graph(after), technique
                assert print_graph(before) == text, f"{technique} changes the graph it was given"

    def test_refusals_name_the_reason(self) -> None:
        for technique in self._each():
            try:
                technique.apply(parse_graph(self.nothing))
            except TechniqueError as error:
                assert _says_why(technique, error), f"{technique}: a refusal without a reason: {error}"
            else:
                raise AssertionError(f"{technique} finds nothing to change and does not refuse")

    def test_options_out_of_range_are_refused(self) -> None:
        for technique in self._each():
            for name, value in _out_of_range(technique):
                try:
                    type(technique)(**{name: value})
                except TechniqueError as error:
                    assert name in str(error), f"{technique}: {error} does not name {name}"
                else:
                    raise AssertionError(f"{technique.name} takes {name}={value}")

    def test_its_text_reads_back(self) -> None:
        for technique in self._each():
            name, _, rest = str(technique).partition(":")
            assert name == technique.name
            assert read_options(type(technique), rest) == technique

    def test_its_card_is_whole(self) -> None:
        for technique in self._each():
            cls = type(technique)
            card = card_of(cls)
            assert not shape_problem(cls), shape_problem(cls)
            assert not card_problem(card), f"{technique.name}: {card_problem(card)}"
            equates = any(mark in card["formula"] for mark in "=<>") or not cls.card  # own cards refer to one another
            assert equates, f"{technique.name}: its formula equates nothing"
            example = cls.__doc__ or ""
            assert "before:" in example and "after:" in example, f"{technique.name}: its docstring shows no before: and after:"
            assert set(cls.refused) <= set(RATED), f"{technique.name}: refused names engines among {', '.join(RATED)}"
            assert all(len(reason.split()) > 3 for reason in cls.refused.values()), f"{technique.name}: refused without a reason"


def _says_why(technique: Technique, error: TechniqueError) -> bool:
    """The name, a colon, and three words at least."""
    name, _, reason = str(error).partition(":")
    return name.startswith(technique.name) and len(reason.split()) >= 3


def _interface(graph: Graph) -> list[tuple[str, tuple[str, ...]]]:
    inputs = [(t.name, tuple(map(str, t.shape))) for t in graph.tensors.values() if t.role.name == "INPUT"]
    return inputs + [("", tuple(map(str, graph.tensors[name].shape))) for name in graph.outputs]


def _out_of_range(technique: Technique) -> Iterator[tuple[str, Value]]:
    for f in fields(technique):
        for end, step in ((f.metadata["least"], -1), (f.metadata["most"], 1)):
            if end is not None:
                yield f.name, end + step
