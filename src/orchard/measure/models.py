"""Whole models with random weights that no fit sees: what `orchard measure` times and `orchard validate --measured` predicts.

Architectures at their published sizes; nothing is downloaded. Transformers builds most of them from a configuration; the
U-Net block, the LSTM and the small transformer that is trained are written here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from orchard.measure.library import library
from orchard.measure.programs import Program, Step, of_module, training

MODELS: dict[str, Program] = {}


def _model(name: str, about: str, *, grad: bool = False) -> Callable[[Callable[[], Step]], Callable[[], Step]]:
    def register(build: Callable[[], Step]) -> Callable[[], Step]:
        MODELS[name] = Program(name=name, group="model", build=build, grad=grad, about=about)
        return build

    return register


def _image(size: int = 224, batch: int = 1) -> Any:
    torch = library("torch")

    return torch.randn(batch, 3, size, size)


def _ids(tokens: int, batch: int = 1) -> Any:
    torch = library("torch")

    return torch.ones(batch, tokens, dtype=torch.long)


@_model("resnet-50", "ResNet-50, one image of 224x224")
def _resnet() -> Step:
    hub = library("transformers")

    return of_module(hub.ResNetForImageClassification(hub.ResNetConfig(num_labels=1000)).eval(), pixel_values=_image())


@_model("mobilenet-v2", "MobileNetV2, one image of 224x224")
def _mobilenet() -> Step:
    hub = library("transformers")

    model = hub.MobileNetV2ForImageClassification(hub.MobileNetV2Config(num_labels=1001)).eval()
    return of_module(model, pixel_values=_image())


@_model("vit-b-16", "ViT-B/16, one image of 224x224")
def _vit() -> Step:
    hub = library("transformers")

    return of_module(hub.ViTForImageClassification(hub.ViTConfig(num_labels=1000)).eval(), pixel_values=_image())


@_model("convnext-t", "ConvNeXt-T, one image of 224x224")
def _convnext() -> Step:
    hub = library("transformers")

    return of_module(
        hub.ConvNextForImageClassification(hub.ConvNextConfig(num_labels=1000)).eval(), pixel_values=_image()
    )


def _distilbert(tokens: int) -> Step:
    hub = library("transformers")

    return of_module(hub.DistilBertModel(hub.DistilBertConfig()).eval(), input_ids=_ids(tokens))


@_model("distilbert-128", "DistilBERT, 128 tokens")
def _distilbert_128() -> Step:
    return _distilbert(128)


@_model("distilbert-512", "DistilBERT, 512 tokens")
def _distilbert_512() -> Step:
    return _distilbert(512)


def _gpt2() -> Any:
    hub = library("transformers")

    return hub.GPT2LMHeadModel(hub.GPT2Config()).eval()


@_model("gpt2-prefill", "GPT-2 124M, a prompt of 256 tokens")
def _gpt2_prefill() -> Step:
    return of_module(_gpt2(), input_ids=_ids(256), use_cache=False)


def _decoding(model: Any, context: int, layers: int, heads: int, width: int, dtype: Any) -> Step:
    """One token after `context` cached ones. The cache grows by one row a layer, as generation does, and is cut back."""
    torch = library("torch")
    hub = library("transformers")

    keys = [torch.randn(1, heads, context, width, dtype=dtype) for _ in range(2 * layers)]
    token = _ids(1)
    position = torch.full((1, 1), context, dtype=torch.long)

    def run() -> Any:
        cache = hub.DynamicCache()
        for layer in range(layers):
            cache.update(keys[2 * layer], keys[2 * layer + 1], layer)
        return model(input_ids=token, past_key_values=cache, position_ids=position, use_cache=True).logits

    def tensors() -> Any:
        yield from model.parameters()
        yield from model.buffers()
        yield from (*keys, token, position)

    return Step(run, tensors)


@_model("gpt2-decode", "GPT-2 124M, one token after 256")
def _gpt2_decode() -> Step:
    torch = library("torch")

    return _decoding(_gpt2(), 256, 12, 12, 64, torch.float32)


def _llama(dtype: Any) -> Any:
    """Half a billion parameters in the shape of Llama 3: 24 layers of 1024, grouped heads, SwiGLU, tied embeddings."""
    torch = library("torch")
    hub = library("transformers")

    config = hub.LlamaConfig(
        vocab_size=32000, hidden_size=1024, intermediate_size=4864, num_hidden_layers=24, num_attention_heads=16,
        num_key_value_heads=4, max_position_embeddings=2048, tie_word_embeddings=True,
    )  # fmt: skip
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        return hub.LlamaForCausalLM(config).eval()
    finally:
        torch.set_default_dtype(before)


@_model("llama-0.5b-prefill-f32", "Llama style 0.5B, a prompt of 128 tokens, float32")
def _llama_prefill() -> Step:
    torch = library("torch")

    return of_module(_llama(torch.float32), input_ids=_ids(128), use_cache=False)


@_model("llama-0.5b-decode-f32", "Llama style 0.5B, one token after 256, float32")
def _llama_decode() -> Step:
    torch = library("torch")

    return _decoding(_llama(torch.float32), 256, 24, 4, 64, torch.float32)


@_model("llama-0.5b-prefill-bf16", "Llama style 0.5B, a prompt of 128 tokens, bfloat16")
def _llama_prefill_bf16() -> Step:
    torch = library("torch")

    return of_module(_llama(torch.bfloat16), input_ids=_ids(128), use_cache=False)


@_model("llama-0.5b-decode-bf16", "Llama style 0.5B, one token after 256, bfloat16")
def _llama_decode_bf16() -> Step:
    torch = library("torch")

    return _decoding(_llama(torch.bfloat16), 256, 24, 4, 64, torch.bfloat16)


@_model("whisper-tiny-encoder", "Whisper tiny, the encoder on 30 s of audio")
def _whisper() -> Step:
    torch = library("torch")
    hub = library("transformers")

    config = hub.WhisperConfig(
        d_model=384, encoder_layers=4, encoder_attention_heads=6, encoder_ffn_dim=1536, decoder_layers=1,
        decoder_attention_heads=6, decoder_ffn_dim=1536,
    )  # fmt: skip
    return of_module(hub.WhisperModel(config).eval().encoder, input_features=torch.randn(1, 80, 3000))


@_model("unet-block", "A U-Net block: residual convolutions and attention on 320 channels of 64x64")
def _unet() -> Step:
    torch = library("torch")

    return of_module(unet_block(320, 8).eval(), torch.randn(1, 320, 64, 64), torch.randn(1, 1280))


def unet_block(channels: int, heads: int) -> Any:
    """Group norm, SiLU, 3x3 convolution, time embedding, the same again with a skip; then self-attention and GEGLU."""
    torch = library("torch")
    nn, F = torch.nn, torch.nn.functional

    class Block(nn.Module):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.norm1, self.norm2, self.norm3 = (nn.GroupNorm(32, channels) for _ in range(3))
            self.conv1, self.conv2 = (nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))
            self.time = nn.Linear(1280, channels)
            self.enter, self.leave = (nn.Conv2d(channels, channels, 1) for _ in range(2))
            self.ln1, self.ln2 = nn.LayerNorm(channels), nn.LayerNorm(channels)
            self.qkv, self.out = nn.Linear(channels, 3 * channels, bias=False), nn.Linear(channels, channels)
            self.up, self.down = nn.Linear(channels, 8 * channels), nn.Linear(4 * channels, channels)

        def forward(self, x: Any, t: Any) -> Any:
            h = self.conv1(F.silu(self.norm1(x)))
            h = h + self.time(F.silu(t))[:, :, None, None]
            x = x + self.conv2(F.silu(self.norm2(h)))
            n, c, height, width = x.shape
            y = self.enter(self.norm3(x)).permute(0, 2, 3, 1).reshape(n, height * width, c)
            q, k, v = (p.view(n, -1, heads, c // heads).transpose(1, 2) for p in self.qkv(self.ln1(y)).chunk(3, dim=-1))
            y = y + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, -1, c))
            gate, value = self.up(self.ln2(y)).chunk(2, dim=-1)
            y = y + self.down(F.gelu(gate) * value)
            return x + self.leave(y.reshape(n, height, width, c).permute(0, 3, 1, 2))

    return Block()


@_model("lstm-2x512", "Two LSTM layers of 512, 100 steps, a batch of 8")
def _lstm() -> Step:
    torch = library("torch")

    return of_module(torch.nn.LSTM(256, 512, num_layers=2, batch_first=True).eval(), torch.randn(8, 100, 256))


# ---- training


def small_transformer(layers: int = 4, width: int = 256, heads: int = 4, vocabulary: int = 8000) -> Any:
    """A causal language model with pre-norm blocks; `recompute` checkpoints each block."""
    torch = library("torch")
    nn, F = torch.nn, torch.nn.functional
    checkpoint = library("torch.utils.checkpoint").checkpoint

    class Block(nn.Module):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.ln1, self.ln2 = nn.LayerNorm(width), nn.LayerNorm(width)
            self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
            self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

        def forward(self, x: Any) -> Any:
            n, t, c = x.shape
            q, k, v = (p.view(n, t, heads, c // heads).transpose(1, 2) for p in self.qkv(self.ln1(x)).chunk(3, dim=-1))
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + self.out(y.transpose(1, 2).reshape(n, t, c))
            return x + self.down(F.gelu(self.up(self.ln2(x))))

    class Language(nn.Module):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(vocabulary, width)
            self.blocks = nn.ModuleList(Block() for _ in range(layers))
            self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary, bias=False)
            self.recompute = False

        def forward(self, ids: Any) -> Any:
            x = self.embed(ids)
            for block in self.blocks:
                x = checkpoint(block, x, use_reentrant=False) if self.recompute else block(x)
            return self.head(self.norm(x))

    return Language()


def _training(*, recompute: bool = False, lora: int = 0, mixed: bool = False) -> Step:
    torch = library("torch")
    F = torch.nn.functional

    model = small_transformer()
    model.recompute = recompute
    if lora:
        add_lora(model, lora)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4)
    ids = torch.ones(4, 128, dtype=torch.long)

    def loss() -> Any:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=mixed):
            logits = model(ids)
        return F.cross_entropy(logits.float().view(-1, logits.shape[-1]), ids.view(-1))

    return training(model, optimizer, loss, ids)


def add_lora(model: Any, rank: int) -> None:
    """Every linear layer inside blocks gets a trained pair of thin matrices; all other parameters are frozen."""
    torch = library("torch")
    nn = torch.nn

    class Adapted(nn.Module):  # type: ignore[misc,name-defined]
        def __init__(self, base: Any) -> None:
            super().__init__()
            self.base = base
            self.a = nn.Linear(base.in_features, rank, bias=False)
            self.b = nn.Linear(rank, base.out_features, bias=False)

        def forward(self, x: Any) -> Any:
            return self.base(x) + self.b(self.a(x))

    for parameter in model.parameters():
        parameter.requires_grad_(False)
    for block in model.blocks:
        for name, child in list(block.named_children()):
            if isinstance(child, torch.nn.Linear):
                setattr(block, name, Adapted(child))


@_model("train-step", "A training step of a small transformer: 4 layers of 256, 4 x 128 tokens, AdamW", grad=True)
def _train() -> Step:
    return _training()


@_model("train-step-checkpointing", "The same with activation checkpointing", grad=True)
def _train_checkpointing() -> Step:
    return _training(recompute=True)


@_model("train-step-lora", "The same with LoRA of rank 8 on every block's linear layers", grad=True)
def _train_lora() -> Step:
    return _training(lora=8)


@_model("train-step-mixed", "The same under bfloat16 autocast", grad=True)
def _train_mixed() -> Step:
    return _training(mixed=True)
