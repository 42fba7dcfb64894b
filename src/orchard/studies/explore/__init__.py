"""Explorations: which SoC should be built. Study files, evaluation of design points, resumable runs."""
