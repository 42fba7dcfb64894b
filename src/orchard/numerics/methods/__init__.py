"""Techniques with options: texts, order, and what each does to a torch model."""
