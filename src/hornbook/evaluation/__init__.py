"""Bits per byte, perplexities, intervals: one scale for every rung and every tokeniser."""
