"""The promise: one frozen object that owns everything the guarantee depends on.

Read `privacy_plan`; `settings` has what there is to choose from, and which of it goes together.
Offers `PrivacyPlan`.
"""

from dpacc.plan.privacy_plan import INDEPENDENT as INDEPENDENT
from dpacc.plan.privacy_plan import PrivacyPlan as PrivacyPlan
from dpacc.plan.settings import Clipping as Clipping
from dpacc.plan.settings import Correlation as Correlation
from dpacc.plan.settings import Drawing as Drawing
from dpacc.plan.settings import Noise as Noise
from dpacc.plan.settings import Sampling as Sampling
