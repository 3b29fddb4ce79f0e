"""The promise: one frozen object that owns everything the guarantee depends on.

Read `privacy_plan`, and `several_phases` for a run that changes its batch or its noise; `settings`
has what there is to choose from, and which of it goes together. Names are loaded on first use.
Offers `PrivacyPlan` and `phased_plan`.
"""

from typing import TYPE_CHECKING

from dpacc import on_first_use

if TYPE_CHECKING:
    from dpacc.plan.privacy_plan import INDEPENDENT as INDEPENDENT
    from dpacc.plan.privacy_plan import PrivacyPlan as PrivacyPlan
    from dpacc.plan.settings import Clipping as Clipping
    from dpacc.plan.settings import Correlation as Correlation
    from dpacc.plan.settings import Drawing as Drawing
    from dpacc.plan.settings import Noise as Noise
    from dpacc.plan.settings import Sampling as Sampling
    from dpacc.plan.several_phases import phased_plan as phased_plan

_HOMES = {
    "Clipping": "dpacc.plan.settings",
    "Correlation": "dpacc.plan.settings",
    "Drawing": "dpacc.plan.settings",
    "INDEPENDENT": "dpacc.plan.privacy_plan",
    "Noise": "dpacc.plan.settings",
    "PrivacyPlan": "dpacc.plan.privacy_plan",
    "Sampling": "dpacc.plan.settings",
    "phased_plan": "dpacc.plan.several_phases",
}

__all__ = [
    "INDEPENDENT",
    "Clipping",
    "Correlation",
    "Drawing",
    "Noise",
    "PrivacyPlan",
    "Sampling",
    "phased_plan",
]

__getattr__, __dir__ = on_first_use(globals(), _HOMES)
