"""What a run would need, found without its weights: memory, traffic, time, noise, and a launch."""
