"""Model families end to end: tiny transformers configurations on the meta device, against torch's own counter.

Run: python benchmarks/importers/families.py     (recorded: families.out; the suite runs the quick ones)

MACs and parameters equal torch's counter and the module exactly; torch counts every contraction on the meta device.
"""

import time
import warnings

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


class UNet(torch.nn.Module):
    """Down, attention over pixels, up with a skip connection: what a diffusion U-Net repeats."""

    def __init__(self):
        super().__init__()
        self.inp, self.down = torch.nn.Conv2d(4, 32, 3, padding=1), torch.nn.Conv2d(32, 64, 3, stride=2, padding=1)
        self.norm = torch.nn.GroupNorm(8, 64)
        self.attention = torch.nn.MultiheadAttention(64, 4, batch_first=True)
        self.time = torch.nn.Linear(16, 64)
        self.up = torch.nn.ConvTranspose2d(64, 32, 2, stride=2)
        self.out = torch.nn.Conv2d(64, 4, 3, padding=1)

    def forward(self, x, t):
        skip = self.inp(x)
        y = self.down(skip) + self.time(t)[:, :, None, None]
        tokens = torch.nn.functional.silu(self.norm(y)).flatten(2).transpose(1, 2)
        tokens = tokens + self.attention(tokens, tokens, tokens, need_weights=False)[0]
        y = tokens.transpose(1, 2).reshape(y.shape)
        return self.out(torch.cat([self.up(y), skip], 1))


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
    "unet": (UNet, {"x": (1, 4, 16, 16), "t": (1, 16)}),
}  # fmt: skip


def counts(name: str) -> tuple[int, int, int, int]:
    """(MACs, torch's MACs, parameters, the module's parameters)."""
    make, inputs = FAMILIES[name]
    with torch.device("meta"):
        net = make().eval()
    program, _ = export_module(torch, net, dict(inputs), name)  # as `import_model(net, inputs)` does, once for both
    imported = import_model(program)
    with FlopCounterMode(display=False) as counter:
        program.module()(**dict(program.example_inputs[1]))
    parameters = sum(p.numel() for p in net.parameters())
    return macs(imported.graph), counter.get_total_flops() // 2, imported.weights.parameters, parameters


def main() -> None:
    warnings.simplefilter("ignore")
    for name in FAMILIES:
        start = time.process_time()
        ours, torchs, stored, parameters = counts(name)
        told = "equal" if (ours, stored) == (torchs, parameters) else f"DIFFERS from {torchs} and {parameters}"
        print(
            f"{name:12} {ours:12,} MACs {stored:10,} parameters: {told}; {time.process_time() - start:.1f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
