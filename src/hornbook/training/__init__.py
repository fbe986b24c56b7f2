"""Batches + model -> a better model: the one loop, its objective, optimisers and schedules."""
