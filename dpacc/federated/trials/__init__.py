"""What a federation's settings are worth, found out on public data by the real engine.

Read `candidates`, which are worth a try, `public_shares`, which gives each client its part of the
public records, `one_trial`, which runs one, and `quality`, what it and its error are;
`worth_taking` then says which candidate reaches a target, and how surely.
Offers `Trial`, `Candidate` and `worth_taking`.
"""
