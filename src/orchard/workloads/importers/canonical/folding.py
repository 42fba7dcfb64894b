"""Batch norm, bias, padding and quantization fold into the contraction beside them."""

from __future__ import annotations

from collections.abc import Sequence

from orchard.ir import Role, Size, parse_einsum
from orchard.workloads.importers.canonical.net import Net, place_of
from orchard.workloads.importers.lowering import Node, Value

# ---- 4. folding into contractions


def fold_padding(net: Net) -> None:
    """Zeros put around the spatial axes of a convolution's or pool's input are that op's own padding."""
    for node in list(net.nodes):
        if not node.is_("move", "pad") or net.is_output(node.out):
            continue
        padded = [i for i, (a, b) in enumerate(zip(node.inputs[0].shape, node.out.shape)) if a != b]
        readers = net.users(node.out)
        if readers and all(_pads_itself(r, node.out, padded) for r in readers):
            net.replace(node.out, node.inputs[0])
        elif len(readers) == 1 and readers[0].kind == "view":
            _fold_through_groups(net, node, readers[0], padded)


def _fold_through_groups(net: Net, pad: Node, view: Node, padded: Sequence[int]) -> None:
    """The same where a grouped convolution splits the channels in between."""
    kept = len(pad.out.shape) - min(padded)  # axes from the first padded one to the last
    more = len(view.out.shape) - len(pad.out.shape)
    readers = net.users(view.out)
    if view.out.shape[-kept:] != pad.out.shape[-kept:] or net.is_output(view.out) or not readers:
        return
    if all(_pads_itself(r, view.out, [axis + more for axis in padded]) for r in readers):
        shape = (*view.out.shape[:-kept], *pad.inputs[0].shape[-kept:])
        before = Node("view", [pad.inputs[0]], [Value(view.out.name, shape, view.out.format)], {}, view.scope)
        before.out.producer = before
        net.nodes[place_of(net.nodes, view)] = before
        net.replace(view.out, before.out)


def _pads_itself(reader: Node, value: Value, axes: Sequence[int]) -> bool:
    if reader.kind == "pool":
        return value is reader.inputs[0] and min(axes) >= 2
    if (
        reader.kind != "einsum"
        or reader.inputs[0] is not value
        or (len(reader.inputs) > 1 and reader.inputs[1] is value)
    ):
        return False
    access = parse_einsum(str(reader.attrs["spec"])).inputs[0]
    return all(not access[axis].is_plain for axis in axes)


def _channel_axis(einsum: Node) -> Size | None:
    """Length of the axis a bias of this Einsum runs over: n of a linear, k (or g) of a convolution."""
    spec = parse_einsum(str(einsum.attrs["spec"]))
    if len(spec.inputs) != 2:
        return None
    names = [a.dims[0] for a in spec.output]
    if any(not a.is_plain for a in spec.inputs[0]):
        shape = dict(zip(names, einsum.out.shape))
        if "g" in names:
            return shape["g"] * shape.get("k", 1)
        return shape.get("k")
    return einsum.out.shape[-1] if names else None


def _behind_view(net: Net, value: Value) -> Node | None:
    """The Einsum that made `value`, looking through reshapes that only it feeds."""
    node = value.producer
    while node is not None and node.kind == "view" and net.only_user(node.inputs[0]) is node:
        node = node.inputs[0].producer
    return node if node is not None and node.kind == "einsum" else None


def recognise_batchnorm(net: Net) -> None:
    """(x - mean) / deviation * gain + shift with stored vectors is an inference batch norm written out."""
    for last in net.nodes:
        vectors: list[Value] = []
        node: Node | None = last
        step: tuple[Value, Value] | None = None
        for fns in (("add",), ("mul",), ("div", "mul"), ("sub",)):
            step = _vector_step(node, fns) if node is not None else None
            if step is None or (node is not last and node is not None and net.only_user(node.out) is None):
                break
            vectors.append(step[1])
            node = step[0].producer
        if len(vectors) == 4 and step is not None and len({v.elements for v in vectors}) == 1:
            last.kind, last.attrs = "norm", {"fn": "batchnorm"}
            shift, gain, deviation, mean = vectors
            last.inputs = [step[0], gain, shift, mean, deviation]
            last.out.name = "batchnorm"


def _vector_step(node: Node, fns: Sequence[str]) -> tuple[Value, Value] | None:
    """(x, stored vector) of an elementwise op of these functions that keeps the shape of x."""
    if not node.is_("elementwise", *fns) or len(node.inputs) != 2:
        return None
    orders = [node.inputs, node.inputs[::-1]] if node.fn in ("add", "mul") else [node.inputs]
    for x, vector in orders:
        stored = vector.role is Role.WEIGHT and x.role is not Role.WEIGHT
        if stored and vector.elements != 1 and sum(s != 1 for s in vector.shape) == 1 and x.shape == node.out.shape:
            return x, vector
    return None


def fold_batchnorm(net: Net) -> None:
    """Inference batch norm after a convolution or linear layer is part of its weights; the shift stays as a bias."""
    for node in net.nodes:
        if not node.is_("norm", "batchnorm") or len(node.inputs) < 2 or net.only_user(node.inputs[0]) is not node:
            continue
        einsum = _behind_view(net, node.inputs[0])
        if einsum is None or _channel_axis(einsum) != node.inputs[1].elements:
            continue
        if len(einsum.inputs) == 2:
            einsum.inputs.append(node.inputs[2] if len(node.inputs) > 2 else node.inputs[1])
        net.replace(node.out, node.inputs[0])


def fold_bias(net: Net) -> None:
    """einsum + bias: the addition of a stored vector over the output channels becomes the Einsum's last operand."""
    for node in net.nodes:
        if not node.is_("elementwise", "add") or len(node.inputs) != 2:
            continue
        for x, bias in (node.inputs, node.inputs[::-1]):
            if bias.role is not Role.WEIGHT or bias.scalar is not None or net.only_user(x) is not node:
                continue
            einsum = _behind_view(net, x)
            if einsum is None or len(einsum.inputs) != 2 or _channel_axis(einsum) != bias.elements:
                continue
            if x.shape == node.out.shape:
                einsum.inputs.append(bias)
                net.replace(node.out, x)
                break


def fold_scale(net: Net) -> None:
    """A stored vector that multiplies the output channels of a stored weight is part of that weight, as for batch norms.

    Layer scales are such vectors; coremltools folds them, so a graph that kept them would differ by exporter.
    """
    for node in net.nodes:
        found = _vector_step(node, ("mul", "div"))
        if found is None or net.only_user(found[0]) is not node:
            continue
        einsum = _behind_view(net, found[0])
        if einsum is None or einsum.inputs[1].role is not Role.WEIGHT or _channel_axis(einsum) != found[1].elements:
            continue
        net.replace(node.out, found[0])


def fold_affine(net: Net) -> None:
    """Scale and shift that follow a norm are its parameters; so is a batch norm that a converter made of them.

    A table by which an average pool is divided holds how many taps each window has, and is the pool's own.
    """
    for fns in (("mul",), ("add",)):
        for node in net.nodes:
            if node.is_("norm", "batchnorm") and net.only_user(node.inputs[0]) is node:
                norm = _norm_before(net, node.inputs[0])
                if norm is not None:
                    norm.inputs.extend(node.inputs[1:3])
                    net.replace(node.out, node.inputs[0])
                continue
            if not node.is_("elementwise", *fns) or len(node.inputs) != 2:
                continue
            for x, parameter in (node.inputs, node.inputs[::-1]):
                norm = _norm_before(net, x) if net.only_user(x) is node else None
                stored = parameter.role is Role.WEIGHT and parameter.scalar is None
                if norm is not None and stored and x.shape == node.out.shape:
                    norm.inputs.append(parameter)
                    net.replace(node.out, x)
                    break
        net.refresh()
    for node in net.nodes:
        pooled = node.is_("elementwise", "div") and len(node.inputs) == 2 and net.producer(node.inputs[0], "pool", "avg")
        if pooled and node.inputs[1].role is Role.WEIGHT and net.only_user(node.inputs[0]) is node:
            net.replace(node.out, node.inputs[0])


def _norm_before(net: Net, x: Value) -> Node | None:
    """The norm of rows or groups that made `x`, looking through reshapes that only it feeds."""
    node = x.producer
    while node is not None and node.kind == "view" and net.only_user(node.inputs[0]) is node:
        node = node.inputs[0].producer
    return node if node is not None and node.kind == "norm" and node.fn != "batchnorm" else None


def fold_quantization(net: Net) -> None:
    """Integer tensors flow between integer ops: `dequantize` disappears into its readers, `quantize` into its
    producer."""
    for node in net.nodes:
        if node.is_("elementwise", "dequantize") and node.inputs[0].role is not Role.WEIGHT:
            net.replace(node.out, node.inputs[0])
    net.refresh()
    for node in net.nodes:
        if not node.is_("elementwise", "quantize"):
            continue
        source = node.inputs[0]
        if source.producer is not None and net.only_user(source) is node:
            source.format = node.out.format
            net.replace(node.out, source)


def fold_shuffles(net: Net) -> None:
    """Channels of equal parts that are interleaved after their concatenation are written interleaved at once.

    before: concat -> view [.., parts, c, ..] -> transpose of those two axes -> view back
    after:  concat interleave=True
    """
    for node in net.nodes:
        concat, split, back = _around(net, node)
        if concat is None or split is None or back is None or len({v.shape for v in concat.inputs}) != 1:
            continue
        axis, parts = concat.attrs["axis"], len(concat.inputs)
        if not isinstance(axis, int) or back.out.shape != concat.out.shape:
            continue
        before = concat.out.shape[:axis]
        apart = (*before, parts, concat.inputs[0].shape[axis], *concat.out.shape[axis + 1 :])
        swapped = (*range(axis), axis + 1, axis, *range(axis + 2, len(apart)))
        if split.out.shape == apart and node.attrs["perm"] == swapped:
            concat.attrs["interleave"] = True
            net.replace(back.out, concat.out)


def _around(net: Net, node: Node) -> tuple[Node | None, Node | None, Node | None]:
    """(concat, view, view) around a transpose when nothing else reads what is between them."""
    split = node.inputs[0].producer if node.is_("move", "transpose") else None
    concat = split.inputs[0].producer if split is not None and split.kind == "view" else None
    back = net.only_user(node.out)
    alone = split is not None and net.only_user(split.inputs[0]) is split and net.only_user(split.out) is node
    if not alone or concat is None or not concat.is_("move", "concat") or back is None or back.kind != "view":
        return None, None, None
    return concat, split, back
