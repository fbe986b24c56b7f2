"""What models are made of: norms, MLPs, positions, attention, the Transformer, caches.

Shapes everywhere: B rows, T positions, D width of the residual stream, H heads, K width of a head, V tokens.
"""
