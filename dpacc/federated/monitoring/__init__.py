"""What privacy buys while a run goes on: quality beside the ε that its ledger holds.

Read `course` (points, and what more ε brought), then `utility_monitor`, which collects them in a
federation's rounds or any loop, with `trainer_callback` for transformers' Trainer; `comparison`
sets runs side by side, `curve` draws them as a picture and `live_curve` for a browser. Offers
`UtilityMonitor`, `Course` and `compare`.
"""

from dpacc.federated.monitoring.comparison import compare as compare
from dpacc.federated.monitoring.course import Course as Course
from dpacc.federated.monitoring.utility_monitor import UtilityMonitor as UtilityMonitor
