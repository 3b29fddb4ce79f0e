"""What an organisation runs: its own data, its own engine, its own ledger.

Read `private_client`, then what it does in a round: `client_data`, `local_adapter`,
`local_training`, `last_update`, `optimizer_state`, `rank_at_client`; `earlier_phases` is what its
records have cost before. `trusting_client` and
`non_private_training` are the same where the server adds the noise. Offers `DPLoRAClient` and
`TrustingClient`.
"""
