"""The guarantee in an attacker's terms.

Read `tradeoff`, then `best_attack`, and `one_run_audit` for what an attack that was really made
proves. Offers `tradeoff_curve`, `attack_risk` and `one_run_epsilon`.
"""
