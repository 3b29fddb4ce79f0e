"""How a model is placed on its ranks, and how the private gradient reaches its optimizer.

Read `contract`, then `replicated`, `fsdp2` and `zero` with its `zero_config`, and `selection` of
one of them. `cutting` says which bases may be cut, `held_parameters` what a model holds, and what
an optimizer must. Offers `Backend`, `Fsdp2`, `Replicated`, `Zero` and `backend_for`.
"""

from dpacc.ranks.backends.contract import Backend as Backend
from dpacc.ranks.backends.fsdp2 import Fsdp2 as Fsdp2
from dpacc.ranks.backends.replicated import Replicated as Replicated
from dpacc.ranks.backends.selection import backend_for as backend_for
from dpacc.ranks.backends.selection import refuse_cut_models as refuse_cut_models
from dpacc.ranks.backends.zero import Zero as Zero

__all__ = ["Backend", "Fsdp2", "Replicated", "Zero", "backend_for", "refuse_cut_models"]
