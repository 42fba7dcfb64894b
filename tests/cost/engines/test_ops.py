"""Single operations on GPU and CPU: the routes and limits that the engine models name."""

import numpy as np
import pytest

from orchard.cost.engines import cpu_ops, gpu_ops
from orchard.cost.lower import Lowering, lower
from orchard.cost.profile import load_profile
from orchard.hw import HardwareArrays, load_chip
from orchard.ir import Builder


def seconds(profile_name, chip, graph, **changed):
    profile = load_profile(profile_name)
    hw = HardwareArrays.of(load_chip(chip))
    model = {"gpu-ops": gpu_ops.gpu_times, "cpu-ops": cpu_ops.cpu_times}[profile.model]
    terms = model(lower(graph, profile.lowering).evaluate({}), hw, {**profile.values(), **changed}, profile.rules)
    return float(terms.total.sum())


def product(m, n, k, fmt="f32", bias=False):
    b = Builder("product", activations=fmt)
    y = b.linear(b.input("x", (m, k)), b.weight("w", (k, n), part="other", format=fmt))
    if bias:
        y = b.elementwise("add", y, b.weight("bias", (n,), part="other", format=fmt))
    return b.build([y])


def convolution(channels, out, taps=3, side=64):
    b = Builder("convolution", activations="f32")
    x = b.input("x", (4, channels, side + taps - 1, side + taps - 1))
    w = b.weight("w", (out, channels, taps, taps), part="conv", format="f32")
    spec = "b c (p+r) (q+s), m c r s -> b m p q"
    return b.build(b.op("einsum", [x, w], [(4, out, side, side)], attrs={"spec": spec}))


def attention(head, tokens=1024):
    b = Builder("attention", activations="f16")
    pairs = tokens * tokens
    q = b.input("q", (1, tokens, 8, 1, head))
    k, v = (b.input(n, (1, tokens, 8, head)) for n in "kv")
    scores = b.einsum("b t g r d, b s g d -> b g r t s", q, k, pairs=pairs)
    y = b.einsum("b g r t s, b s g d -> b t g r d", b.softmax(scores, pairs=pairs), v, pairs=pairs)
    return b.build([y])


def test_large_products_reach_the_fitted_share_of_the_lane_rate():
    hw, share = HardwareArrays.of(load_chip("m3max")), load_profile("mlx-gpu-ops").values()["product_efficiency"]
    peak = 2 * 8192**3 / float(hw["gpu.fp32"])
    assert peak / share <= seconds("mlx-gpu-ops", "m3max", product(8192, 8192, 8192)) < 1.15 * peak / share


def test_channels_that_fit_no_product_kernel_run_one_output_per_lane():
    per_mac = {c: seconds("mlx-gpu-ops-2024", "m1pro", convolution(c, 64)) / c for c in (12, 16)}
    assert per_mac[12] > 10 * per_mac[16]
    later = seconds("mlx-gpu-ops", "m1pro", convolution(12, 64))
    assert later < 0.3 * 12 * per_mac[12]  # unfolded to memory instead


def test_winograd_starts_at_its_channels():
    rate = {c: c * c / seconds("mlx-gpu-ops", "m4max", convolution(c, c, side=128)) for c in (96, 128)}
    assert rate[128] > 1.3 * rate[96]  # 96 + 96 channels stay below the 256 of the rule


def test_attention_is_one_kernel_up_to_the_widest_head():
    rules = load_profile("mlx-gpu-ops").lowering
    assert [k.kind for k in lower(attention(128), rules).kernels] == ["attention"]
    apart = [k.kind for k in lower(attention(256), rules).kernels]
    assert "attention" not in apart
    assert apart.count("linear") == 2
    assert lower(attention(256), Lowering()).kernels[0].kind == "attention"


def test_bf16_costs_a_conversion_before_m3():
    ratio = {c: seconds("mps-gpu-ops", c, product(4096, 4096, 4096, "bf16")) for c in ("m1pro", "m4max")}
    half = {c: seconds("mps-gpu-ops", c, product(4096, 4096, 4096, "f16")) for c in ("m1pro", "m4max")}
    assert ratio["m1pro"] > 1.7 * half["m1pro"]
    assert ratio["m4max"] == pytest.approx(half["m4max"])


def test_a_small_product_stays_on_the_matrix_unit_of_one_cluster():
    hw = HardwareArrays.of(load_chip("m1max"))
    gain = {
        n: seconds("accelerate-cpu-ops", "m1max", product(n, n, n), parallel_work=1e30)
        / seconds("accelerate-cpu-ops", "m1max", product(n, n, n), parallel_work=1.0)
        for n in (128, 2048)
    }
    assert float(hw["cpu.p.clusters"]) == 2.0
    assert gain[2048] == pytest.approx(2.0, rel=0.2)
    wide, small = (seconds("accelerate-cpu-ops", "m1max", product(n, n, n)) / n**3 for n in (2048, 128))
    assert small > 2 * wide


def test_a_bias_laid_out_on_one_thread_costs_more_on_two_clusters():
    x = product(8192, 1024, 32, bias=True)
    assert seconds("mlx-cpu-ops", "m3max", x) > 1.3 * seconds("mlx-cpu-ops-2024", "m3max", x)
    assert seconds("mlx-cpu-ops", "m3", x) == pytest.approx(seconds("mlx-cpu-ops-2024", "m3", x))


def test_one_row_is_bound_by_bytes():
    hw = HardwareArrays.of(load_chip("m4"))
    p = load_profile("accelerate-cpu-ops").values()
    expected = 4 * 4096 * 4096 / (float(hw["cpu.bandwidth"]) * p["stream_efficiency"])
    assert seconds("accelerate-cpu-ops", "m4", product(1, 4096, 4096)) == pytest.approx(expected, rel=0.01)
    assert np.isfinite(seconds("accelerate-cpu-ops", "m5", product(64, 64, 64)))  # a chip without P clusters


def test_operands_of_a_product_are_packed_by_the_core_and_read_once_from_memory():
    """Few columns, little arithmetic: a core reads, writes and reads again what DRAM gives once."""
    hw, p = HardwareArrays.of(load_chip("m1")), load_profile("accelerate-cpu-ops").values()
    rows, depth = 16, 1_000_000
    x = product(rows, 16, depth)
    operands, draw = 4.0 * 2 * rows * depth, p["cluster_bytes_per_cycle"] * float(hw["cpu.p.clock"])
    no_work = {"matrix_efficiency": 1e6, "parallel_work": 1e30}
    assert seconds("accelerate-cpu-ops", "m1", x, **no_work) == pytest.approx(3 * operands / draw, rel=0.01)
    from_memory = operands / (float(hw["cpu.bandwidth"]) * p["stream_efficiency"])
    fast_core = {**no_work, "cluster_bytes_per_cycle": 1e6}
    assert seconds("accelerate-cpu-ops", "m1", x, **fast_core) == pytest.approx(from_memory, rel=0.01)


def test_the_general_kernel_of_old_builds_has_one_size_of_block():
    """Without the time of bytes, 32 columns cost there what 33 cost; kernels by shape halve their block."""

    def narrow_over_wide(profile, chip):
        a, b = (seconds(profile, chip, product(65536, n, 1024), stream_efficiency=1e6) for n in (32, 33))
        return a / b

    assert narrow_over_wide("mps-gpu-ops-2024", "m1pro") == pytest.approx(1.0, rel=0.01)
    assert narrow_over_wide("mps-gpu-ops", "m1pro") == pytest.approx(0.5, rel=0.02)
    assert narrow_over_wide("mps-gpu-ops-2024", "m4") == pytest.approx(0.5, rel=0.02)  # M3 and later have no such kernel
