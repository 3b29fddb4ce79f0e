"""Measure privacy instead of believing it: canaries, guesses, and what they prove.

Read `claims`, `verdict` and `wording` for how an audit is judged and worded, then what it judges:
`gradient_canaries` in a `rehearsal` of the real engine, `text_canaries`, which the `last_adapter`
gives away, `synthetic_canaries` in what an adapter writes, `trainers` of anybody, and `records` of
their scores. `finished` asks a finished adapter, for `membership` and `exposure`; `picture` draws.

Names are loaded on first use: judging guesses needs no torch. Offers `rehearse`, `audit_trainer`,
`judge` and `Claim`.
"""

from typing import TYPE_CHECKING

from dpacc import on_first_use

if TYPE_CHECKING:
    from dpacc.audit.claims import Claim as Claim
    from dpacc.audit.gradient_canaries import DiracCanaries as DiracCanaries
    from dpacc.audit.rehearsal import rehearse as rehearse
    from dpacc.audit.trainers import audit_trainer as audit_trainer
    from dpacc.audit.trainers import projections as projections
    from dpacc.audit.verdict import Audit as Audit
    from dpacc.audit.verdict import judge as judge

_HOMES = {
    "Audit": "dpacc.audit.verdict",
    "Claim": "dpacc.audit.claims",
    "DiracCanaries": "dpacc.audit.gradient_canaries",
    "audit_trainer": "dpacc.audit.trainers",
    "judge": "dpacc.audit.verdict",
    "projections": "dpacc.audit.trainers",
    "rehearse": "dpacc.audit.rehearsal",
}

__all__ = [
    "Audit",
    "Claim",
    "DiracCanaries",
    "audit_trainer",
    "judge",
    "projections",
    "rehearse",
]


__getattr__, __dir__ = on_first_use(globals(), _HOMES)
