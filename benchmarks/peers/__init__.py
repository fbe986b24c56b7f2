"""What the training benchmarks run, each in a process of its own: python -m peers.loops, .ours, .recipes."""
