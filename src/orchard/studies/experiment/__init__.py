"""Designed experiments on quality: what to run, running it, and what it says."""
