"""Techniques on real tensors. Modules that need torch import it; this one does not, so that names cost nothing."""
