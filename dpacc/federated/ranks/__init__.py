"""Clients of different ranks, what a rank costs, and what to choose.

Read `mixed_ranks` and `rank_choice`; `round_ranks`, by which all share one rank a round; then
`tuning` and `model_shape`, which plan without a model.
Offers `PublicRank` and `PrivateRank`.
"""
