"""A federation on machines of their own: what each side is told, and what it makes of it.

Read `run_settings` and `node_settings`, which `flower_config` reads, then `node_client`.
Offers `RunSettings`, `NodeSettings`, `read_config`, `client_of` and `answer_once`.
"""
