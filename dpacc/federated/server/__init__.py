"""What asks, adds up and remembers: the federation's server on Flower.

Read `federated_server` with its `round_settings` and `shared_model`, then `strategy`, which reads
`replies`, and of which `fedask_strategy` and `secure_sum_strategy` are kinds, `history` and
`kept_state`; `in_process_grid` carries messages without a network, `reply_stream` takes those of
one a few at a time, `held_out` measures and `utility_chart` draws; `published_adapter` and
`adapter_card` are what the world gets, and `run_results` all that a run leaves. Offers
`FederatedServer` and `History`.
"""
