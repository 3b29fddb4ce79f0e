"""What was run: immutable descriptions, in Python, as JSON, in words, and in dp-accounting's terms.

Read `event` with what it is made of (`clipped_sums`, `mechanisms`, `finite_mechanisms`,
`sampled_over_steps`, `separated_participation`) and `fields`, then `participation` and
`example_sampling`, the events of a training run, and `flattening`, which makes a list of any
composition. `documents`, `conversion` and `descriptions` say the same elsewhere; `arguments` checks
what every public function is given. Offers `Event` and its kinds.
"""
