"""Is what ran what was accounted? Findings in plain words, for a run's folder or for a script.

Read `finding`, then the examinations: `run_folder` with `stated`, `engine_room` and `script`, which
judge what they record by `statistics`; `private_data` looks through what a run would learn from,
for its owner, and `synthetic_text` at what was written, and at counts of labels. Offers `Finding`.
"""
