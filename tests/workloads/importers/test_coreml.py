"""ML programs: compressed weights with their true bytes, states, flexible shapes, several functions."""

import logging

import pytest

logging.disable(logging.WARNING)
ct = pytest.importorskip("coremltools")
logging.disable(logging.NOTSET)

import coremltools.optimize.coreml as cto  # noqa: E402
import numpy as np  # noqa: E402
from coremltools.converters.mil import Builder as mb  # noqa: E402
from coremltools.converters.mil.mil import types  # noqa: E402

from orchard.ir import Role  # noqa: E402
from orchard.ir.count import macs  # noqa: E402
from orchard.workloads import weight_bytes  # noqa: E402
from orchard.workloads.importers import ImportError_, import_model  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")
RNG = np.random.default_rng(0)


def w(*shape):
    return RNG.normal(size=shape).astype(np.float16)


def convert(program, target="iOS18", **kwargs):
    return ct.convert(program, minimum_deployment_target=getattr(ct.target, target), skip_model_load=True, **kwargs)


def save(model, tmp_path, name="m"):
    path = tmp_path / f"{name}.mlpackage"
    model.save(str(path))
    return path


def program(target):
    @mb.program(input_specs=[mb.TensorSpec((1, 64, 8, 8), types.fp16)], opset_version=getattr(ct.target, target))
    def net(x):
        y = mb.conv(x=x, weight=CONV, pad_type="same")
        y = mb.reshape(x=y, shape=[1, 64, 64])
        return mb.linear(x=y, weight=LINEAR)

    return net


CONV, LINEAR = w(64, 64, 3, 3), w(256, 64)
N_CONV, N_LINEAR = CONV.size, LINEAR.size
ROWS = 64 + 256


@pytest.fixture(scope="module")
def bases():
    return {target: convert(program(target), target) for target in ("iOS16", "iOS18")}


def config(op):
    return cto.OptimizationConfig(global_config=op)


def palette(**kwargs):
    return lambda m: cto.palettize_weights(m, config(cto.OpPalettizerConfig(mode="uniform", weight_threshold=0, **kwargs)))


def linear(**kwargs):
    return lambda m: cto.linear_quantize_weights(m, config(cto.OpLinearQuantizerConfig(weight_threshold=0, **kwargs)))


def prune(m):
    return cto.prune_weights(m, config(cto.OpMagnitudePrunerConfig(target_sparsity=0.5, weight_threshold=0)))


def joint(m):
    return cto.palettize_weights(
        prune(m), config(cto.OpPalettizerConfig(mode="uniform", nbits=4, weight_threshold=0)), joint_compression=True
    )


# a table holds 2^bits f16 entries; scales are f16; zero points as wide as the codes; a mask is one bit per weight
N = N_CONV + N_LINEAR
RECIPES = {
    "plain": ("iOS18", lambda m: m, "f16", 2 * N),
    "palette iOS16": ("iOS16", palette(nbits=4), "pal4", N // 2 + 2 * 32),
    "palette 6": ("iOS18", palette(nbits=6), "pal6", N * 6 // 8 + 2 * 128),
    "palette groups": (
        "iOS18", palette(nbits=4, granularity="per_grouped_channel", group_size=16), "pal4-g16", N // 2 + ROWS // 16 * 32,
    ),
    "int8 iOS16": ("iOS16", linear(mode="linear"), "int8-channel-asym", N + ROWS * (2 + 1)),
    "int8 per tensor": ("iOS18", linear(mode="linear_symmetric", granularity="per_tensor"), "int8", N + 2 * 2),
    "int8 per channel": ("iOS18", linear(mode="linear_symmetric"), "int8-channel", N + ROWS * 2),
    "int4 blocks": (
        "iOS18", linear(mode="linear_symmetric", dtype="int4", granularity="per_block", block_size=32), None,
        N // 2 + 2 * (64 * 64 // 32 + 256 * 64 // 32),
    ),
    "sparse": ("iOS16", prune, "sparse50-f16", N // 8 + N // 2 * 2),
    "sparse palette": ("iOS18", joint, "sparse50-pal4", N // 8 + N // 2 // 2 + 2 * 32),
}  # fmt: skip


@pytest.mark.parametrize("name", RECIPES)
def test_compressed_weights_have_their_format_and_bytes(name, bases, tmp_path):
    target, compress, format, size = RECIPES[name]
    found = import_model(save(compress(bases[target]), tmp_path))
    stored = {t.format: t for t in found.graph.weights if len(t.shape) > 1}
    assert set(stored) == ({format} if format else {"int4-b288", "int4-b32"})  # a block of 32 channels spans 9 taps
    size += 2 * 256  # the zero bias that the converter adds
    assert sum(b for f, b in found.weights.formats.items() if f != "int32") == pytest.approx(size, rel=1e-3)
    assert weight_bytes(found.graph) == pytest.approx(size, rel=1e-3)
    assert (found.weights.parameters, found.graph.parameters) == (N + 256, N + 256)
    assert macs(found.graph) == 64 * N_CONV + 64 * N_LINEAR


def test_a_state_is_read_and_updated(tmp_path):
    @mb.program(
        input_specs=[mb.TensorSpec((1, 1, 8), types.fp16), mb.StateTensorSpec((1, 32, 8), types.fp16)],
        opset_version=ct.target.iOS18,
    )
    def step(x, cache):
        old = mb.read_state(input=cache)
        new = mb.slice_update(x=old, update=x, begin=[0, 3, 0], end=[1, 4, 8])
        kept = mb.coreml_update_state(state=cache, value=new)
        return mb.matmul(x=x, y=kept, transpose_y=True)

    found = import_model(save(convert(step, pass_pipeline=ct.PassPipeline.EMPTY), tmp_path))
    (state,) = found.graph.of_role(Role.STATE)
    assert (state.shape, state.format) == ((1, 32, 8), "f16")
    assert [op.kind for op in found.graph.ops if op.kind != "view"] == ["update", "einsum"]
    assert macs(found.graph) == 32 * 8


@pytest.fixture(scope="module")
def flexible(tmp_path_factory):
    torch = pytest.importorskip("torch")
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, stride=2, padding=1), torch.nn.ReLU()).eval()
    traced = torch.jit.trace(net, torch.zeros(1, 3, 32, 32))
    folder = tmp_path_factory.mktemp("flexible")
    shapes = {
        "range": (1, 3, ct.RangeDim(16, 512, default=32), ct.RangeDim(16, 512, default=32)),
        "listed": ct.EnumeratedShapes([(1, 3, 32, 32), (1, 3, 64, 48)], default=(1, 3, 32, 32)),
    }
    return {
        name: save(convert(traced, "iOS16", inputs=[ct.TensorType(name="image", shape=shape)]), folder, name)
        for name, shape in shapes.items()
    }


def test_ranges_are_symbols_with_a_note(flexible):
    found = import_model(flexible["range"])
    assert len(found.graph.symbols) == 2
    assert any("1x3x(16 to 512)x(16 to 512)" in n and "--input image=1x3x32x32" in n for n in found.warnings)
    assert macs(import_model(flexible["range"], {"image": (1, 3, 64, 32)}).graph) == 8 * 27 * 32 * 16


def test_a_shape_outside_the_range_or_list_is_refused(flexible):
    with pytest.raises(ImportError_, match=r"image takes 1x3x\(16 to 512\)x\(16 to 512\), got 1x3x8x32"):
        import_model(flexible["range"], {"image": (1, 3, 8, 32)})
    with pytest.raises(ImportError_, match="image takes one of 1x3x32x32, 1x3x64x48, got 1x3x64x64"):
        import_model(flexible["listed"], {"image": (1, 3, 64, 64)})
    assert macs(import_model(flexible["listed"], {"image": (1, 3, 64, 48)}).graph) == 8 * 27 * 32 * 24


def test_control_flow_is_refused_with_a_reason(tmp_path):
    @mb.program(input_specs=[mb.TensorSpec((1,), types.fp16)], opset_version=ct.target.iOS16)
    def looped(x):
        return mb.while_loop(
            _cond=lambda v: mb.less(x=mb.squeeze(x=v), y=np.float16(5)), _body=lambda v: mb.add(x=v, y=np.float16(1)),
            loop_vars=(x,),
        )  # fmt: skip

    with pytest.raises(ImportError_, match=r"control flow \(while_loop\)"):
        import_model(save(convert(looped, "iOS16"), tmp_path))


@pytest.mark.parametrize("scaled", [False, True])
def test_tables_per_input_channel_and_tap_count_whole(bases, tmp_path, scaled):
    """coremltools 9 writes one table per input channel and tap when palettes get a scale per channel."""
    op = cto.OpPalettizerConfig(
        mode="uniform", nbits=4, granularity="per_tensor", weight_threshold=64, enable_per_channel_scale=scaled
    )
    path = save(cto.palettize_weights(bases["iOS18"], config(op)), tmp_path)
    found = import_model(path)
    written = (path / "Data/com.apple.CoreML/weights/weight.bin").stat().st_size
    assert weight_bytes(found.graph) == pytest.approx(found.weights.bytes, rel=0.01)
    assert found.weights.bytes == pytest.approx(written, rel=0.02)
    assert not found.warnings
    formats = {t.format for t in found.graph.weights if t.format.startswith("pal")}
    assert formats == ({"pal4-t576-s", "pal4-t64-s"} if scaled else {"pal4"})


@pytest.mark.parametrize("scale", [None, 1.0])
def test_a_pipeline_is_refused_with_what_to_do(tmp_path, scale):
    from coremltools.proto import Model_pb2

    spec = Model_pb2.Model(specificationVersion=1)
    for _ in range(2 if scale else 0):
        spec.pipeline.models.add(specificationVersion=1)
    spec.pipeline.SetInParent()
    path = tmp_path / "m.mlmodel"
    path.write_bytes(spec.SerializeToString())
    with pytest.raises(ImportError_, match=r"pipeline of (2|several) models.*import them one by one"):
        import_model(path)
