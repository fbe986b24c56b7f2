"""A built model, changed in place: its matrices in 8 or 4 bits."""
