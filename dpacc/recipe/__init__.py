"""What a recipe needs around the step: settings, examples, a model, an optimizer, a measurement.

Read `config` (on top of `settings` and `consistency`), then in a recipe's order: `training_data`
with `examples`, `assembly` with `pretrained`, `models` and `precision`, `objective`, `optimizers`,
`evaluation`, `preferences` of pairs of answers, `predictions`, `trackers` and `public_times`.
Offers `TrainingConfig`, `load_base` and `add_lora`.
"""
