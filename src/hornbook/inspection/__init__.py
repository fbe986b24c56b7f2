"""Look inside a model: what it is made of, by the shapes of its tensors alone."""
