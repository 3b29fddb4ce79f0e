"""One private step: drawn, cut, clipped, summed, charged, noised once.

Read `engine` for the whole, then in the order of a step: `unit_members`, `batching` and
`micro_batches`; `logical_step`, which a loop holds; `strategies`, `clipping` and `accumulation`
(`integer_sum` in whole numbers); `release`, the only way out, and `run_ledger`, written before it.
`checkpoint`, `resumption` and `update_rule` go on after a crash; `averaging` ends a run. What may
not begin at all is in the room `admission`. Offers `PrivacyEngine` and `LogicalStep`.
"""
