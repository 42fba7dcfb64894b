"""Diffusion models: U-Nets, transformers and auto-encoders, one architecture a file, and the pipelines they make."""
