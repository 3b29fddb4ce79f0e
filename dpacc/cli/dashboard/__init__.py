"""Runs, federations and budgets in a browser: what their files say, as they grow.

Read `places`, which finds them; `first_sight`, what a run's files say unchecked, and `run_state`,
whether it goes on; `prices`, and `kept`, by which nothing is read or priced twice; `listed_runs`,
all of them, and `run_table`, which says it; then `one_run` and `one_federation`, and `utility`,
which compares both, and saved courses. None of these needs Streamlit. `charts` are Plotly's,
`pages` draws with Streamlit, which runs `app`; `server` keeps it to this machine. Offers
`find_places`, `RunList` and `serve`.
"""
