"""What a run would need, found without its weights: memory, traffic, time, noise, and a launch.

Read `forecast` for the whole, and `fitting` for several machines at once; then `architectures` and
`skeleton`, a model of full size that weighs nothing; `weightless_step`, `live_memory` and
`known_outcomes`, a step on it; `memory`, `earlier_noise`, `noise_over_signal`, `traffic` and
`launch`; `unit_sampling` compares two ways to protect people. `first_settings` proposes a run for a
file.
Offers `forecast` and `Machine`.
"""
