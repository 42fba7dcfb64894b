"""Model families end to end: small configurations against torch's own counter, then the same network on every route.

Run: python benchmarks/importers/families.py [NAME ...]     (recorded: families.out; the suite runs the quick ones)

MACs and parameters equal torch's counter and the module exactly; torch counts every contraction on the meta device. The
routes through ONNX, Core ML and Core AI must have the same MACs, and bytes within 2 % of the torch.export route; an exporter
that refuses is quoted. Families are classes of `transformers`, or blocks.py where it has none.
"""

import contextlib
import os
import signal
import sys
import time
import warnings

import blocks
import networks
import torch
import transformers
from torch.utils.flop_counter import FlopCounterMode

from orchard.ir.count import macs
from orchard.workloads.importers import import_model
from orchard.workloads.importers.torch_export.live import export_module

IDS, IMAGE = {"input_ids": (1, 16)}, {"pixel_values": (1, 3, 64, 64)}
SMALL = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
AUDIO = {"conv_dim": (32,) * 3, "conv_kernel": (10, 3, 3), "conv_stride": (5, 2, 2), "num_conv_pos_embeddings": 16}
T5 = {"vocab_size": 100, "d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 2, "num_heads": 4}
SEQ2SEQ = {
    "d_model": 64, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4, "decoder_attention_heads": 4,
    "encoder_ffn_dim": 128, "decoder_ffn_dim": 128,
}  # fmt: skip
TOKENS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}


def model(name, config, **fields):
    return lambda: getattr(transformers, name)(getattr(transformers, config)(**fields))


def detr():
    backbone = transformers.ResNetConfig(
        embedding_size=16, hidden_sizes=[16, 32], depths=[1, 1], out_features=["stage2"]
    )
    return transformers.DetrModel(
        transformers.DetrConfig(
            use_timm_backbone=False, use_pretrained_backbone=False, backbone=None, backbone_config=backbone, num_queries=10,
            **SEQ2SEQ,
        )
    )  # fmt: skip


def sam():
    from transformers.models.sam.modeling_sam import SamVisionEncoder

    config = transformers.SamVisionConfig(
        image_size=64, patch_size=8, mlp_dim=128, window_size=4, global_attn_indexes=[1], output_channels=32,
        **{k: v for k, v in SMALL.items() if k != "intermediate_size"},
    )  # fmt: skip
    return SamVisionEncoder(config)


LABELS = {"num_labels": 10}


def efficientnet():
    config = transformers.EfficientNetConfig(
        image_size=64, width_coefficient=0.5, depth_coefficient=0.3, hidden_dim=640, **LABELS
    )
    net = transformers.EfficientNetForImageClassification(config)
    net.efficientnet.pooler = torch.nn.AdaptiveAvgPool2d(1)  # the same as its window of 640 over 2 x 2
    return net


def sd(text):
    """Latents, time embedding and text of a denoiser."""
    return {"x": (1, 4, 16, 16), "t": (1, 16), "text": (1, 12, text)}


PICTURE = {"x": (1, 3, 64, 64)}


FAMILIES = {
    "t5": (model("T5Model", "T5Config", **T5), IDS | {"decoder_input_ids": (1, 8)}),
    "wav2vec2": (
        model("Wav2Vec2Model", "Wav2Vec2Config", num_feat_extract_layers=3, num_conv_pos_embedding_groups=4, **SMALL, **AUDIO),
        {"input_values": (1, 2000)},
    ),
    "mamba": (
        model("MambaModel", "MambaConfig", vocab_size=100, hidden_size=64, state_size=8, num_hidden_layers=1, time_step_rank=4),
        IDS,
    ),
    "detr": (detr, IMAGE),
    "sam encoder": (sam, IMAGE),
    "swin": (
        model("SwinModel", "SwinConfig", image_size=64, embed_dim=32, depths=[2, 2], num_heads=[2, 4], window_size=4), IMAGE,
    ),
    "convnext": (model("ConvNextModel", "ConvNextConfig", hidden_sizes=[16, 32], depths=[1, 2], num_stages=2), IMAGE),
    "whisper": (
        model("WhisperModel", "WhisperConfig", vocab_size=100, max_source_positions=50, num_mel_bins=16,
              decoder_start_token_id=1, **SEQ2SEQ, **TOKENS),
        {"input_features": (1, 16, 100), "decoder_input_ids": (1, 8)},
    ),
    "clip": (
        model("CLIPModel", "CLIPConfig", text_config=SMALL | TOKENS | {"vocab_size": 100},
              vision_config=SMALL | {"image_size": 64, "patch_size": 16}, projection_dim=32),
        IDS | IMAGE,
    ),
    "distilbert": (
        model("DistilBertModel", "DistilBertConfig", vocab_size=100, dim=64, n_layers=2, n_heads=4, hidden_dim=128), IDS,
    ),
    "segformer": (
        model("SegformerModel", "SegformerConfig", num_encoder_blocks=2, hidden_sizes=[16, 32], depths=[1, 1],
              num_attention_heads=[1, 2], sr_ratios=[4, 2], patch_sizes=[7, 3], strides=[4, 2], mlp_ratios=[2, 2]),
        IMAGE,
    ),
    "resnet": (
        model("ResNetForImageClassification", "ResNetConfig", embedding_size=16, hidden_sizes=[16, 32], depths=[1, 1], **LABELS),
        IMAGE,
    ),
    "mobilenet v1": (model("MobileNetV1ForImageClassification", "MobileNetV1Config", depth_multiplier=0.25, **LABELS), IMAGE),
    "mobilenet v2": (model("MobileNetV2ForImageClassification", "MobileNetV2Config", depth_multiplier=0.35, **LABELS), IMAGE),
    "mobilenet v3": (blocks.mobilenet_v3, PICTURE),
    "mobilenet v4": (blocks.mobilenet_v4, PICTURE),
    "efficientnet": (efficientnet, IMAGE),
    "mobileone": (blocks.mobileone, PICTURE),
    "fastvit": (blocks.fastvit, PICTURE),
    "mobilevit": (
        model("MobileViTForImageClassification", "MobileViTConfig", image_size=64, hidden_sizes=[16, 24, 32],
              neck_hidden_sizes=[8, 8, 16, 24, 32, 40, 64], **LABELS),
        IMAGE,
    ),
    "vit": (model("ViTForImageClassification", "ViTConfig", image_size=64, **SMALL, **LABELS), IMAGE),
    "efficientformer": (blocks.efficientformer, PICTURE),
    "repvit": (blocks.repvit, PICTURE),
    "swiftformer": (
        model("SwiftFormerForImageClassification", "SwiftFormerConfig", depths=[1, 1, 1, 1], embed_dims=[16, 16, 24, 32],
              **LABELS),
        IMAGE,
    ),
    "yolo": (blocks.Detector, PICTURE),
    "unet": (blocks.unet, sd(48)),
    "unet xl": (blocks.unet_xl, sd(96)),
    "dit": (blocks.DiT, sd(48)),
    "vae decoder": (blocks.Decoder, {"x": (1, 4, 8, 8)}),
    "lstm": (lambda: blocks.Recurrent(torch.nn.LSTM), {"input_ids": (1, 6)}),
    "gru": (lambda: blocks.Recurrent(torch.nn.GRU), {"input_ids": (1, 6)}),
}  # fmt: skip


CAUSES = {
    "detr": "the exporters compute the first decoder layer's attention over constants (zeros plus stored positions) themselves",
    "repvit": "Core AI folds the batch norm of a skip branch into the convolution before it, which it then runs twice",
    "lstm": "Core AI writes the steps out one by one, and each reads the weights again",
    "gru": "as for the LSTM; coremltools makes a while_loop of it, which has no one graph",
}
"""Why a route differs, printed beneath it."""
ROWS = {"lstm": 4, "gru": 3}
"""Gates of the recurrent layers, whose products torch's counter does not see."""


def counts(name: str) -> tuple[int, int, int, int]:
    """(MACs, torch's MACs, parameters, the module's parameters)."""
    make, inputs = FAMILIES[name]
    with torch.device("meta"):
        net = make().eval()
    program, _ = export_module(torch, net, named(net, inputs), name)  # as `import_model(net, inputs)` does, once for both
    imported = import_model(program)
    with FlopCounterMode(display=False) as counter:
        program.module()(**dict(program.example_inputs[1]))
    parameters = sum(p.numel() for p in net.parameters())
    expected = counter.get_total_flops() // 2
    if name in ROWS:  # 6 steps, layers of 24 and 32 inputs, 32 states
        expected = 6 * (ROWS[name] * 32 * (24 + 32 + 32 + 32) + 32 * 50)
    return macs(imported.graph), expected, imported.weights.parameters, parameters


def named(net, inputs):
    """A Sequential calls its argument `input`."""
    return {"input": inputs["x"]} if isinstance(net, torch.nn.Sequential) else dict(inputs)


def routes(name: str) -> str:
    """One clause: what ONNX, Core ML and Core AI make of the network, beside torch.export."""
    make, inputs = FAMILIES[name]
    torch.manual_seed(0)
    net = make().eval()
    if isinstance(net, transformers.PreTrainedModel):
        net.set_attn_implementation("eager")
        net = networks.plain(net, tuple(inputs))
    net, xs = networks.as_trained(net), networks.examples(inputs)
    reference, told = networks.measure("torch", net, xs), []
    if "failed" in reference:
        return f"torch.export {reference['failed']} failed: {reference['error']}"
    for route in networks.ROUTES[1:]:
        signal.alarm(networks.LIMIT_S)
        with open(os.devnull, "w") as quiet, contextlib.redirect_stdout(quiet), contextlib.redirect_stderr(quiet):
            row = networks.measure(route, net, xs)
        signal.alarm(0)
        told.append(f"{route} {networks.against(reference, row)}")
    return "; ".join(told)


def main(wanted: list[str]) -> None:
    warnings.simplefilter("ignore")
    signal.signal(signal.SIGALRM, networks.on_alarm)
    for name in wanted or FAMILIES:
        start = time.process_time()
        ours, torchs, stored, parameters = counts(name)
        told = "equal" if (ours, stored) == (torchs, parameters) else f"DIFFERS from {torchs} and {parameters}"
        seconds = time.process_time() - start
        print(f"{name:15} {ours:12,} MACs {stored:10,} parameters: {told}; {seconds:.1f} s", flush=True)
        told = routes(name)
        print(f"{'':15} {told}", flush=True)
        if name in CAUSES:
            print(f"{'':15} {CAUSES[name]}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
