"""Well-known networks through torch.export, ONNX, Core ML and Core AI: the same MACs, the same bytes, the published size.

Run: python benchmarks/importers/networks.py [NAME ...]     (recorded: networks.md from networks.jsonl)

Each network is the class of `transformers` in its published configuration with random weights. Rows are kept in
networks.jsonl as they are made, so a run that was cut off goes on where it stopped; --again NAME makes a row anew. A route
that its exporter refuses is recorded as the exporter's failure, in its own words.
"""

import contextlib
import copy
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).parent
ROUTES = ("torch", "onnx", "coreml", "coreai")
NAMES = {"onnx": "ONNX", "coreml": "Core ML", "coreai": "Core AI"}
LIMIT_S = int(os.environ.get("NETWORKS_LIMIT_S", "300"))  # of one route
TIMM = "timm"
"""huggingface/pytorch-image-models, results/benchmark-infer-amp-nchw-pt240-cu124-rtx4090.csv (parameters and GMACs)."""
VISION = "torchvision"
"""pytorch/vision, torchvision/models: `num_params` and `_ops` (billions of products) of the weights' metadata."""
TABLE = "networks.csv"
"""src/orchard/workloads/networks.csv, where each row names its source."""
PIXELS = {"pixel_values": (1, 3, 224, 224)}


def ids(tokens: int) -> dict[str, tuple[int, ...]]:
    return {"input_ids": (1, tokens)}


@dataclass(frozen=True)
class Case:
    """One network: class and configuration of transformers, inputs, published millions and GMACs as printed, source.

    A figure may be empty where nobody published one; torch's own counter stands in and the table says so.
    """

    model: str
    config: str
    fields: dict
    inputs: dict
    params_m: str
    gmacs: str
    source: str
    note: str = ""


def vision(model: str, config: str, params_m: str, gmacs: str, source: str = TIMM, side: int = 224, note: str = "", **fields):
    return Case(
        model, config, {"num_labels": 1000} | fields, {"pixel_values": (1, 3, side, side)}, params_m, gmacs, source, note
    )


def deit(dim: int, heads: int) -> dict:
    return {"hidden_size": dim, "num_attention_heads": heads, "intermediate_size": 4 * dim}


def regnet(depths: list[int], widths: list[int], group: int, kind: str) -> dict:
    return {"depths": depths, "hidden_sizes": widths, "groups_width": group, "layer_type": kind, "embedding_size": 32}


def own(function: str, params_m: str, gmacs: str) -> Case:
    """A definition of nets.py, held to torchvision's figures."""
    return Case(f"nets.{function}", "", {}, PIXELS, params_m, gmacs, VISION)


LEVIT = {"hidden_sizes": [128, 256, 384], "num_attention_heads": [4, 6, 8], "depths": [2, 3, 4], "key_dim": [16, 16, 16]}
CASES = {
    "squeezenet-1.1": own("squeezenet", "1.235496", "0.349"),
    "shufflenet-v2-1.0": own("shufflenet", "2.278604", "0.145"),
    "mobilenet-v1": vision("MobileNetV1ForImageClassification", "MobileNetV1Config", "4.24", "0.569", TABLE, tf_padding=False),
    "mobilenet-v2": vision("MobileNetV2ForImageClassification", "MobileNetV2Config", "3.504872", "0.301", VISION,
                           tf_padding=False),
    "mobilenet-v3-large": own("mobilenet_v3", "5.483032", "0.217"),
    "mnasnet-1.0": own("mnasnet", "4.383312", "0.314"),
    "alexnet": own("alexnet", "61.10084", "0.714"),
    "densenet121": own("densenet121", "7.978856", "2.834"),
    "resnet18": vision(
        "ResNetForImageClassification", "ResNetConfig", "11.689512", "1.814", VISION,
        hidden_sizes=[64, 128, 256, 512], depths=[2, 2, 2, 2], layer_type="basic",
    ),
    "resnet34": vision(
        "ResNetForImageClassification", "ResNetConfig", "21.797672", "3.664", VISION,
        hidden_sizes=[64, 128, 256, 512], depths=[3, 4, 6, 3], layer_type="basic",
    ),
    "resnet50": vision("ResNetForImageClassification", "ResNetConfig", "25.557032", "4.089", VISION),
    "regnetx-400mf": vision("RegNetForImageClassification", "RegNetConfig", "5.495976", "0.414", VISION,
                            **regnet([1, 2, 7, 12], [32, 64, 160, 400], 16, "x")),
    "regnety-400mf": vision("RegNetForImageClassification", "RegNetConfig", "4.344144", "0.402", VISION,
                            **regnet([1, 3, 6, 6], [48, 104, 208, 440], 8, "y")),
    "efficientnet-b0": vision(
        "EfficientNetForImageClassification", "EfficientNetConfig", "5.288548", "0.386", VISION, width_coefficient=1.0,
        depth_coefficient=1.0, image_size=224, hidden_dim=1280, depthwise_padding=[],
    ),
    "convnext-atto": vision("ConvNextForImageClassification", "ConvNextConfig", "3.7", "0.55",
                            hidden_sizes=[40, 80, 160, 320], depths=[2, 2, 6, 2]),
    "convnextv2-atto": vision("ConvNextV2ForImageClassification", "ConvNextV2Config", "3.71", "0.55",
                              hidden_sizes=[40, 80, 160, 320], depths=[2, 2, 6, 2]),
    "convnext-t": vision("ConvNextForImageClassification", "ConvNextConfig", "28.589128", "4.456", VISION),
    "poolformer-s12": vision("PoolFormerForImageClassification", "PoolFormerConfig", "11.92", "1.82", TABLE),
    "swiftformer-s": vision("SwiftFormerForImageClassification", "SwiftFormerConfig", "6.09", "0.99", TABLE,
                            depths=[3, 3, 9, 6], embed_dims=[48, 64, 168, 224], note="published with both heads"),
    "levit-128s": vision("LevitForImageClassificationWithTeacher", "LevitConfig", "7.8", "0.305",
                         "arXiv:2104.01136, table 3", note="both heads", **LEVIT),
    "mobilevit-xxs": vision(
        "MobileViTForImageClassification", "MobileViTConfig", "1.27", "0.41", TABLE, side=256, hidden_sizes=[64, 80, 96],
        neck_hidden_sizes=[16, 16, 24, 48, 64, 80, 320], expand_ratio=2.0,
    ),
    "mobilevit-v2-1.0": vision("MobileViTV2ForImageClassification", "MobileViTV2Config", "4.9", "1.8", TABLE, side=256),
    "pvt-v2-b0": vision("PvtV2ForImageClassification", "PvtV2Config", "3.67", "0.57"),
    "deit-tiny": vision("ViTForImageClassification", "ViTConfig", "5.72", "1.26", **deit(192, 3)),
    "vit-small": vision("ViTForImageClassification", "ViTConfig", "22.05", "4.61", **deit(384, 6)),
    "vit-base": vision("ViTForImageClassification", "ViTConfig", "86.567656", "17.564", VISION),
    "swin-t": vision("SwinForImageClassification", "SwinConfig", "28.288354", "4.491", VISION),
    "clip-vit-b32-image": Case("CLIPVisionModel", "CLIPVisionConfig", {}, PIXELS, "87.85", "4.41", TIMM,
                               "published as vit_base_patch32_clip_quickgelu_224"),
    "distilbert": Case("DistilBertModel", "DistilBertConfig", {}, ids(128), "66", "",
                       "huggingface/transformers, examples/research_projects/distillation/README.md"),
    "bert-base": Case("BertModel", "BertConfig", {}, ids(128), "110", "", "google-research/bert, README.md",
                      "the pooler's 0.59 million products feed no output here"),
    "gpt2": Case("GPT2Model", "GPT2Config", {"use_cache": False}, ids(128), "124", "", "openai/gpt-2, model_card.md"),
    "segformer-b0": vision("SegformerForSemanticSegmentation", "SegformerConfig", "", "", "", side=512, num_labels=150),
    "wav2vec2-base": Case("Wav2Vec2Model", "Wav2Vec2Config", {}, {"input_values": (1, 16000)}, "", "", ""),
    "whisper-tiny-encoder": Case(
        "WhisperEncoder", "WhisperConfig", {"d_model": 384, "encoder_layers": 4, "encoder_attention_heads": 6,
                                            "encoder_ffn_dim": 1536}, {"input_features": (1, 80, 3000)}, "", "", "",
    ),
    "t5-small-encoder": Case("T5EncoderModel", "T5Config", {}, ids(128), "", "", ""),
    "detr-r50": Case("detr", "", {}, {"pixel_values": (1, 3, 800, 800)}, "", "", ""),
    "sam-vit-b-image": Case("SamVisionEncoder", "SamVisionConfig", {}, {"pixel_values": (1, 3, 1024, 1024)}, "", "", ""),
}  # fmt: skip


DIFFERS = {
    ("mobilevit-v2-1.0", "coreml"): "coremltools writes the unfolding of patches (`aten.im2col`) as three convolutions with "
    "constant one-hot kernels of 2 x 2 (512 x 128, 768 x 192 and 1024 x 256 channels), 121,634,816 products that the program "
    "does run, and the folding back as gathers",
    ("detr-r50", "coreml"): "the first decoder layer attends to constants (zeros plus stored positions), and coremltools "
    "computes that while it converts: five products of 100 x 256 x 256 and two of 8 x 100 x 100 x 32, 37,888,000 in all, "
    "are not in its program",
    ("swin-t", "coreml"): "coremltools writes each shift of the windows as two gathers by constant indices, one per axis, where "
    "the module has one roll; its transposes around them stay, which is open on our side",
}  # fmt: skip
"""Routes whose products or bytes (more than 2 %) are not those of the torch.export route, and what the converter did; bold in
networks.md."""


def build(case: Case):
    """The module, which returns tensors only (the exporters' common ground)."""
    import torch
    import transformers

    torch.manual_seed(0)
    if case.model.startswith("nets."):
        import nets

        return as_trained(getattr(nets, case.model.removeprefix("nets."))().eval())
    net = detr() if case.model == "detr" else of_class(case, transformers)
    if case.model.startswith("EfficientNet"):  # a window of 1280 over 7 x 7, which Core AI's exporter does not take
        net.efficientnet.pooler = torch.nn.AdaptiveAvgPool2d(1)
    return as_trained(plain(net.eval(), tuple(case.inputs)))


def as_trained(net):
    """Numbers in place of initial zeros and ones, which an exporter would fold away as it never could after training."""
    import torch

    with torch.no_grad():
        stored = dict(net.named_parameters()) | {k: v for k, v in net.named_buffers() if "running" in k}
        for tensor in stored.values():
            if tensor.numel() > 1 and tensor.unique().numel() == 1:
                tensor.uniform_(0.5, 1.5)
    return net


def of_class(case: Case, transformers):
    if case.model == "WhisperEncoder":
        from transformers.models.whisper.modeling_whisper import WhisperEncoder as Class
    elif case.model == "SamVisionEncoder":
        from transformers.models.sam.modeling_sam import SamVisionEncoder as Class
    else:
        Class = getattr(transformers, case.model)
    config = getattr(transformers, case.config)(**case.fields)
    if case.model.startswith(("Swin", "T5", "Sam")):
        config._attn_implementation = "eager"  # torch 2.13's ONNX exporter trips over the strides of its fused attention
    return Class(config)


def detr():
    import transformers

    backbone = transformers.ResNetConfig(out_features=["stage4"])
    config = transformers.DetrConfig(
        use_timm_backbone=False, use_pretrained_backbone=False, backbone=None, backbone_config=backbone
    )
    return transformers.DetrForObjectDetection(config)


def plain(net, names):
    import torch

    class Plain(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, *tensors):
            return self.net(**dict(zip(names, tensors)), return_dict=False)[0]

    return Plain().eval()


def examples(inputs: dict) -> tuple:
    """A tensor for each input."""
    import torch

    return tuple(
        torch.zeros(shape, dtype=torch.long) if name.endswith("input_ids") else torch.randn(shape)
        for name, shape in inputs.items()
    )


# ---- routes: a saved file of the module, or the module's program


def via_torch(net, xs, _folder: Path):
    import torch

    return torch.export.export(net, xs, strict=False)


def via_onnx(net, xs, folder: Path):
    import torch

    path = folder / "m.onnx"
    torch.onnx.export(net, xs, path, dynamo=True, external_data=True, verbose=False)
    return path


def patch_coremltools() -> None:
    """What coremltools 9 lacks beside numpy 2.4 and transformers 5: int() of one-element arrays, diff, new_ones."""
    from coremltools.converters.mil import Builder as mb  # noqa: N813
    from coremltools.converters.mil.frontend.torch import ops
    from coremltools.converters.mil.frontend.torch.torch_op_registry import _TORCH_OPS_REGISTRY, register_torch_op

    cast = ops._cast

    def one_element(context, node, dtype, name):
        x = ops._get_inputs(context, node)[0]
        if getattr(x.val, "size", 0) == 1 and getattr(x.val, "ndim", 0) == 1:
            context.add(mb.const(val=dtype(x.val.item()), name=node.name), node.name)
        else:
            cast(context, node, dtype, name)

    ops._cast = one_element
    if "diff" in _TORCH_OPS_REGISTRY:
        return

    @register_torch_op
    def diff(context, node):
        x = ops._get_inputs(context, node)[0]
        rest = mb.slice_by_index(x=x, begin=[0, 1], end=[0, 0], end_mask=[True, True])
        before = mb.slice_by_index(x=x, begin=[0, 0], end=[0, -1], end_mask=[True, False])
        context.add(mb.sub(x=rest, y=before, name=node.name))

    @register_torch_op
    def new_ones(context, node):
        shape, dtype = ops._get_inputs(context, node)[1:3]
        scalar = shape.val is not None and len(shape.val) == 0
        one = True if dtype is not None and dtype.val == 11 else 1.0  # 11 is torch.bool
        context.add(mb.const(val=one, name=node.name) if scalar else mb.fill(shape=shape, value=one, name=node.name))


def via_coreml(net, xs, folder: Path):
    import coremltools as ct
    import numpy as np
    import torch

    patch_coremltools()
    path = folder / "m.mlpackage"
    traced = torch.jit.trace(copy.deepcopy(net), xs, strict=False, check_trace=False)  # tracing leaves tensors in Swin
    inputs = [
        ct.TensorType(name=f"x{i}", shape=tuple(x.shape), dtype=np.int32 if x.dtype == torch.long else np.float32)
        for i, x in enumerate(xs)
    ]
    model = ct.convert(
        traced, inputs=inputs, convert_to="mlprogram",
        minimum_deployment_target=ct.target.iOS18, compute_precision=ct.precision.FLOAT32, skip_model_load=True,
    )  # fmt: skip
    model.save(path)
    return path


def via_coreai(net, xs, folder: Path):
    import coreai_torch
    import torch

    path = folder / "m.aimodel"
    program = torch.export.export(net, xs, strict=False).run_decompositions(coreai_torch.get_decomp_table())
    coreai_torch.TorchConverter().add_exported_program(program).to_coreai().save_asset(path)
    return path


VIA = {"torch": via_torch, "onnx": via_onnx, "coreml": via_coreml, "coreai": via_coreai}


def traffic(graph) -> int:
    """Bytes every op that runs reads and writes; of a table only the rows."""
    from orchard.units import bytes_of, number_format

    total = 0
    for op in graph.ops:
        if op.kind != "view":
            reads = graph.inputs_of(op)[1 if op.kind == "gather" else 0 :]
            total += sum(bytes_of(number_format(t.format), t.shape) for t in (*reads, *graph.outputs_of(op)))
    return total


def measure(route: str, net, xs) -> dict:
    """Counts of one route, or which step failed and what it said."""
    from orchard.ir.count import macs
    from orchard.workloads.importers import import_model

    step = "exporter"
    with tempfile.TemporaryDirectory() as folder:
        try:
            exported = VIA[route](net, xs, Path(folder))
            step = "importer"
            start = time.process_time()
            found = import_model(exported)
            seconds = time.process_time() - start
            kinds = {}
            for op in found.graph.ops:
                kinds[op.kind] = kinds.get(op.kind, 0) + 1
            return {
                "macs": macs(found.graph), "bytes": traffic(found.graph), "params": found.weights.parameters,
                "ops": kinds, "import_s": round(seconds, 2),
            }  # fmt: skip
        except TimeoutError:
            return {"failed": step, "error": f"not done in {LIMIT_S} s"}
        except Exception as error:  # an exporter's own defects come in every class
            return {"failed": step, "error": f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"}


def counted(net, xs) -> int:
    """MACs by torch's own counter, on the meta device, where it also sees attention."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        net.to("meta")(*(x.to("meta") for x in xs))
    return counter.get_total_flops() // 2


def run_case(name: str, out: Path) -> None:
    """All routes of one network; one line of `out` per route, written as it is done."""
    warnings.simplefilter("ignore")
    case = CASES[name]
    net, xs = build(case), examples(case.inputs)
    params = sum(p.numel() for p in net.parameters())
    signal.signal(signal.SIGALRM, on_alarm)
    for route in ROUTES:
        if (name, route) in read_rows(out):
            continue
        signal.alarm(LIMIT_S)
        with open(os.devnull, "w") as quiet, contextlib.redirect_stdout(quiet), contextlib.redirect_stderr(quiet):
            row = measure(route, net, xs)
        signal.alarm(0)
        write_row(out, {"network": name, "route": route, "torch_params": params} | row)
    if (name, "counter") not in read_rows(out):
        try:
            found = {"macs": counted(net, xs)}
        except Exception as error:
            found = {"failed": "counter", "error": str(error)[:200]}
        write_row(out, {"network": name, "route": "counter"} | found)


def on_alarm(*_):
    raise TimeoutError


def write_row(out: Path, row: dict) -> None:
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=HERE).stdout.strip()
    with out.open("a") as file:
        file.write(json.dumps(row | {"date": time.strftime("%Y-%m-%d"), "commit": commit}) + "\n")


def read_rows(out: Path) -> dict[tuple[str, str], dict]:
    """The last row of each network and route."""
    if not out.is_file():
        return {}
    return {(r["network"], r["route"]): r for r in map(json.loads, out.read_text().splitlines())}


# ---- the table


def within(found: float, printed: str, tolerance: float = 0.01) -> bool:
    """Within 1 %, or equal when rounded to the digits that were printed."""
    digits = len(printed.partition(".")[2])
    return abs(found / float(printed) - 1) <= tolerance or round(found, digits) == float(printed)


def table(rows: dict) -> str:
    lines = [
        "| network | GMACs | published | params M | published | ONNX | Core ML | Core AI | source |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, case in CASES.items():
        reference = rows.get((name, "torch"))
        if reference is None:
            continue
        cells = [against(reference, rows.get((name, route))) for route in ROUTES[1:]]
        lines.append("| " + " | ".join([name, *sizes(case, reference, rows.get((name, "counter"))), *cells, about(case)]) + " |")
    return "\n".join(lines)


def about(case: Case) -> str:
    return "; ".join(t for t in (case.source, case.note) if t) or "no published figure"


def sizes(case: Case, row: dict, counter: dict | None) -> list[str]:
    if "failed" in row:
        return [f"{row['failed']} failed: {row['error']}", case.gmacs, "", case.params_m]
    found, params = row["macs"] / 1e9, row["params"] / 1e6
    published = mark(found, case.gmacs) if case.gmacs else ""
    if counter and "macs" in counter:
        equal = "=" if counter["macs"] == row["macs"] else f"{row['macs'] / counter['macs'] - 1:+.2%} of"
        published = f"{published} {equal} torch's counter".strip()
    return [f"{found:.4g}", published, f"{params:.4g}", mark(params, case.params_m) if case.params_m else "-"]


def mark(found: float, printed: str) -> str:
    return printed if within(found, printed) else f"{printed} (**{found / float(printed) - 1:+.1%}**)"


def against(reference: dict, row: dict | None) -> str:
    if row is None:
        return "not run"
    if "failed" in row:
        return f"{row['failed']} failed: {row['error'][:120]}".replace("|", "/")
    if "failed" in reference:
        return f"{row['macs'] / 1e9:.4g} GMACs"
    macs = "= MACs" if row["macs"] == reference["macs"] else f"**{row['macs'] / reference['macs'] - 1:+.3%} MACs**"
    share = row["bytes"] / reference["bytes"] - 1
    text = f"{share:+.2%} bytes" if abs(share) <= 0.02 else f"**{share:+.1%} bytes**"
    return f"{macs}, {text}"


def report(rows: dict) -> str:
    parts = ("torch", "transformers", "onnx", "onnxscript", "coremltools", "coreai-torch")
    versions = ", ".join(f"{p} {version(p)}" for p in parts)
    dates = sorted({(r["date"], r["commit"]) for r in rows.values()})
    done = sum((n, "torch") in rows for n in CASES)
    first = ", ".join(sorted({f"{d} at {c}" for d, c in dates}))
    return (
        f"# Networks through four importers\n\n`python benchmarks/importers/networks.py`, {first}; {versions}.\n\n"
        f"GMACs and parameters are those of the torch.export route; the other columns compare with it: MACs must be equal, "
        f"bytes moved within 2 %, published figures within 1 % or equal to their digits. What is not so is **bold**. "
        f"{done} of {len(CASES)} networks have been run.\n\n{table(rows)}\n\n"
        "Where a converter changes the program:\n\n"
        + "".join(f"- {name} through {NAMES[route]}: {cause}.\n" for (name, route), cause in DIFFERS.items())
    )


def main(wanted: list[str]) -> None:
    out = HERE / "networks.jsonl"
    if wanted[:1] == ["--again"]:
        kept = [r for r in read_rows(out).values() if r["network"] not in wanted[1:]]
        out.write_text("".join(json.dumps(r) + "\n" for r in kept))
        wanted = wanted[1:]
    if wanted != ["--table"]:
        import coreai_torch  # noqa: F401  (once, before the forks)
        import coremltools  # noqa: F401
        import onnxscript  # noqa: F401
        import torch
        import transformers  # noqa: F401

        torch.set_num_threads(1)
        for name in wanted or CASES:
            if all((name, route) in read_rows(out) for route in (*ROUTES, "counter")):
                continue
            child = multiprocessing.get_context("fork").Process(target=run_case, args=(name, out))
            child.start()
            child.join(len(ROUTES) * LIMIT_S + 60)
            if child.is_alive():
                child.kill()
            print(name, flush=True, file=sys.stderr)
            (HERE / "networks.md").write_text(report(read_rows(out)))
    print(report(read_rows(out)))


if __name__ == "__main__":
    main(sys.argv[1:])
