"""The script that Streamlit runs: `app.py REFRESH PATH...`, once for each who looks."""

import sys

from dpacc.cli.dashboard.pages import show

if __name__ == "__main__":
    show(refresh=float(sys.argv[1]) or None, paths=sys.argv[2:])
