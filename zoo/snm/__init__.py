"""Sparse non-negative matrix language models: skip-grams, their adjustment, and the model in graph."""
