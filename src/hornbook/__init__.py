"""Hornbook: every classic language model, from counting word pairs to Llama 3, on one small codebase."""

__version__ = "0.1.0"
