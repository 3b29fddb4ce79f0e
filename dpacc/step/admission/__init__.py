"""What is refused before the first step, by name, and what is held so that it need not be.

Read `trainable` first, which asks the others about a model: `experts`, `rotary`, `positions`,
`steady_buffers`, `starting_point`. Then the coupling probe: `invented_examples`,
`invented_references` of pairs, `coupling_probe`, `probe_verdict`; and `collation`, what a collate
function must keep. Offers `admit_model` and `CouplingProbe`.
"""
