"""What the benchmarks against peers run, each in a process of its own: python -m peers.loops, .ours, .generators ..."""
