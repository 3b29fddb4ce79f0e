"""How the clients' adapters become one.

Read `averaging`, whose sums `exact_sum` holds, and `rule_choice`, then the other rules: `robust`
with `robust_rules`, `sketches` with `sketch_messages`, and at `client_level` `central_noise`, which
the server adds, with `turns`, who must wait where it is correlated, and `listed_clients`, who is
who. `rollback` gives up a round that broke something. `factors` says where LoRA's factors stand.
Offers `ClientPrivacy` and `Defence`.
"""
