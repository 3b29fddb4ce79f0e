"""What nobody can predict: secrets, samples, noise, and dropout that is each example's own.

Read `run_secret` first: every stream of random words is keyed by it, a purpose and a step.
`sampling` draws who takes part; `gaussian_noise`, repeated on a GPU by `device_noise` from
`aes_words`, `correlated_noise`, `buffered_noise` and `discrete_gaussian` hide the sum;
`dropout_masks` and `keyed_dropout` key masks to an example. `stray_draws` and `global_generators`
watch everybody else's generators. Offers `RunSecret`, `sampler_for`, `standard_normals` and
`discrete_gaussians`.
"""
