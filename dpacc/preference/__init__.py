"""Pairs of answers, of which one was preferred.

`reference` computes what the frozen base makes of each pair, once; `held_out` measures on other
pairs. How a pair is read is `dpacc.data.pairs`, and its losses are `dpacc.losses.preferences`.
Offers `with_reference` and `held_out_preferences`.
"""

from dpacc.preference.held_out import HeldOutPreferences, held_out_preferences
from dpacc.preference.reference import with_reference

__all__ = ["HeldOutPreferences", "held_out_preferences", "with_reference"]
