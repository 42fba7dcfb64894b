"""Every op that torch.utils.flop_counter knows: the same products exactly, or what stands in the way."""

import pytest

torch = pytest.importorskip("torch")

from torch.utils.flop_counter import FlopCounterMode, flop_registry  # noqa: E402

from orchard.ir.count import macs  # noqa: E402
from orchard.workloads.importers import import_model  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")
A = torch.ops.aten
Q, K = (2, 4, 16, 8), (2, 4, 24, 8)
"""[batch, heads, tokens, width]"""
IMAGE, KERNEL, GRADIENT = (1, 3, 9, 9), (4, 3, 3, 3), (1, 4, 5, 5)
SPREAD = ([2, 2], [1, 1], [1, 1], False, [0, 0], 1)
"""stride, padding, dilation, transposed, output padding, groups"""


def backward(mask):
    return lambda g, x, w: [y for y in A.convolution_backward(g, x, w, [4], *SPREAD, mask) if y is not None]


def fused_backward(g, q, k, o, sums):
    return A._scaled_dot_product_flash_attention_backward(
        g, q, k, k, o, sums, g.new_zeros(0), g.new_zeros(0), 16, 24, 0.0, False, g.new_zeros(2), g.new_zeros(2)
    )[:3]


def efficient_backward(g, q, k, o, sums):
    empty = g.new_zeros((), dtype=torch.long)
    return A._scaled_dot_product_efficient_attention_backward(
        g, q, k, k, None, o, sums, empty, empty, 0.0, [True, True, True, False]
    )[:3]


def cudnn_backward(g, q, k, o, sums):
    empty = g.new_zeros(2, dtype=torch.long)
    return A._scaled_dot_product_cudnn_attention_backward(
        g, q, k, k, o, sums, empty, empty, None, None, None, 16, 24, 0.0, False
    )[:3]


GRADIENTS = (Q, Q, K, Q, Q[:3])
CASES = {
    "mm": (A.mm, (3, 4), (4, 5)),
    "addmm": (A.addmm, (5,), (3, 4), (4, 5)),
    "bmm": (A.bmm, (2, 3, 4), (2, 4, 5)),
    "baddbmm": (A.baddbmm, (2, 3, 5), (2, 3, 4), (2, 4, 5)),
    "_scaled_mm": (
        lambda a, b, s: A._scaled_mm(a.to(torch.float8_e4m3fn), b.to(torch.float8_e4m3fn).t(), s, s),
        (16, 32), (48, 32), (1,),
    ),
    "convolution": (lambda x, w: A.convolution(x, w, None, *SPREAD), IMAGE, KERNEL),
    "_convolution": (lambda x, w: A._convolution(x, w, None, *SPREAD, False, False, False, False), IMAGE, KERNEL),
    "convolution_backward": (backward([True, True, True]), GRADIENT, IMAGE, KERNEL),
    "convolution_backward of the weight": (backward([False, True, False]), GRADIENT, IMAGE, KERNEL),
    "_scaled_dot_product_efficient_attention": (
        lambda q, k: A._scaled_dot_product_efficient_attention(q, k, k, None, False)[0], Q, K,
    ),
    "_scaled_dot_product_flash_attention": (lambda q, k: A._scaled_dot_product_flash_attention(q, k, k)[0], Q, K),
    "_scaled_dot_product_cudnn_attention": (
        lambda q, k: A._scaled_dot_product_cudnn_attention(q, k, k, None, False)[0], Q, K,
    ),
    "_scaled_dot_product_flash_attention_backward": (fused_backward, *GRADIENTS),
    "_scaled_dot_product_efficient_attention_backward": (efficient_backward, *GRADIENTS),
    "_scaled_dot_product_cudnn_attention_backward": (cudnn_backward, *GRADIENTS),
}  # fmt: skip
ASIDE = {
    "cudnn_convolution": "no kernel for meta or CPU tensors; exporters name aten.convolution",
    "convolution_overrideable": "no kernel for meta or CPU tensors; exporters name aten.convolution",
    "_flash_attention_backward": "called by the fused backward only, on packed sequences",
    "_efficient_attention_backward": "called by the fused backward only, on packed sequences",
    "flex_attention_backward": "autograd's own; torch.export writes the forward",
    "_slow_conv2d_forward": "torch's own formula does not take its arguments; see test_convolution_of_the_cpu",
    "flex_attention": "does not replay under the counter; see test_flex_attention",
    "_flash_attention_forward": "see test_attention_by_token",
    "_efficient_attention_forward": "see test_attention_by_token",
}


def test_the_registry_is_covered():
    known = {str(op).split(".")[-1] for op in flop_registry}
    assert known == {n.split(" ")[0] for n in CASES} | set(ASIDE)


class Plain(torch.nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *tensors):
        return self.function(*tensors)


def exported(function, shapes, device="meta"):
    tensors = tuple(torch.zeros(s, device=device) for s in shapes)
    return torch.export.export(Plain(function), tensors, strict=False), tensors


@pytest.mark.parametrize("name", CASES)
def test_the_same_products(name):
    function, *shapes = CASES[name]
    program, tensors = exported(function, shapes)
    held = {str(n.target).split(".")[1] if "." in str(n.target) else str(n.target) for n in program.graph.nodes}
    assert name.split(" ")[0] in held
    with FlopCounterMode(display=False) as counter:
        program.module()(*tensors)
    assert macs(import_model(program).graph) == counter.get_total_flops() // 2 > 0


@pytest.mark.parametrize("kernel", ["_flash_attention_forward", "_efficient_attention_forward"])
def test_attention_by_token(kernel):
    """torch counts these as if tokens were heads, which is right where there are as many; here they are told apart."""
    arguments = (None, None, 16, 16, 0.0, False, False) if "flash" in kernel else (None, None, None, None, None, 0.0, 0)
    program, _ = exported(lambda q: getattr(A, kernel)(q, q, q, *arguments)[0], [(2, 16, 4, 8)])
    assert macs(import_model(program).graph) == 2 * (2 * 4 * 16 * 16 * 8)


def test_convolution_of_the_cpu():
    program, _ = exported(lambda x, w: A._slow_conv2d_forward(x, w, [3, 3], None, [2, 2], [1, 1]), (IMAGE, KERNEL), "cpu")
    assert macs(import_model(program).graph) == 5 * 5 * 4 * 3 * 9


def test_flex_attention():
    """The program also builds a block mask out of batched integer ops, which is no work of the network."""
    from torch.nn.attention.flex_attention import flex_attention

    program, (q, k) = exported(lambda q, k: flex_attention(q, k, k), (Q, K), "cpu")
    formula = next(f for op, f in flop_registry.items() if str(op) == "flex_attention")
    graph = import_model(program).graph
    assert macs(graph) == formula(q, k, k) // 2
    assert [op.kind for op in graph.ops] == ["einsum", "softmax", "einsum"]
