"""A federation on machines of their own: what each side is told, and what it makes of it.

Read `run_settings` and `node_settings`, which `flower_config` reads, then what becomes of them:
`node_client`, and `server_run`, whose figures `round_figures` logs, and whose
`final_adapter` nodes may keep; `simulated_nodes` have a number each, and share a file.
`flower_programs` is what the programs of both sides refuse of Flower's.
Offers `RunSettings`, `NodeSettings`, `read_config`, `client_of`, `answer_once` and `run_server`.
"""
