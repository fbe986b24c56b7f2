"""Tokens -> batches: shards on disk, the counter-based sampler, masking for the encoder."""
