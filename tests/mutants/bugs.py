"""All privacy bugs that are planted."""

from __future__ import annotations

from tests.mutants.accounting_bugs import ACCOUNTING_BUGS
from tests.mutants.allocation_bugs import ALLOCATION_BUGS
from tests.mutants.audit_bugs import AUDIT_BUGS
from tests.mutants.books_bugs import BOOKS_BUGS
from tests.mutants.budget_bugs import BUDGET_BUGS
from tests.mutants.compiler_bugs import COMPILER_BUGS
from tests.mutants.correlation_bugs import CORRELATION_BUGS
from tests.mutants.dashboard_bugs import DASHBOARD_BUGS
from tests.mutants.data_bugs import DATA_BUGS
from tests.mutants.deployed_bugs import DEPLOYED_BUGS
from tests.mutants.dynamic_rank_bugs import DYNAMIC_RANK_BUGS
from tests.mutants.event_bugs import EVENT_BUGS
from tests.mutants.federated_bugs import FEDERATED_BUGS
from tests.mutants.federation_hole_bugs import FEDERATION_HOLE_BUGS
from tests.mutants.federation_reply_bugs import FEDERATION_REPLY_BUGS
from tests.mutants.federation_round_bugs import FEDERATION_ROUND_BUGS
from tests.mutants.hospital_bugs import HOSPITAL_BUGS
from tests.mutants.kernel_bugs import KERNEL_BUGS
from tests.mutants.known_bugs import KNOWN_BUGS
from tests.mutants.loop_bugs import LOOP_BUGS
from tests.mutants.mechanism_bugs import MECHANISM_BUGS
from tests.mutants.monitoring_bugs import MONITORING_BUGS
from tests.mutants.own_bugs import OWN_BUGS
from tests.mutants.phase_bugs import PHASE_BUGS
from tests.mutants.preference_bugs import PREFERENCE_BUGS
from tests.mutants.probe_bugs import PROBE_BUGS
from tests.mutants.randomness_bugs import RANDOMNESS_BUGS
from tests.mutants.recommend_bugs import RECOMMEND_BUGS
from tests.mutants.report_bugs import REPORT_BUGS
from tests.mutants.secure_sum_bugs import SECURE_SUM_BUGS
from tests.mutants.separation_bugs import SEPARATION_BUGS
from tests.mutants.statement_bugs import STATEMENT_BUGS
from tests.mutants.subspace_bugs import SUBSPACE_BUGS
from tests.mutants.surface_bugs import SURFACE_BUGS
from tests.mutants.synthetic_bugs import SYNTHETIC_BUGS
from tests.mutants.times_bugs import TIMES_BUGS
from tests.mutants.trial_bugs import TRIAL_BUGS
from tests.mutants.unit_bugs import UNIT_BUGS

BUGS = (
    *KNOWN_BUGS,
    *OWN_BUGS,
    *LOOP_BUGS,
    *FEDERATED_BUGS,
    *ACCOUNTING_BUGS,
    *FEDERATION_HOLE_BUGS,
    *DEPLOYED_BUGS,
    *FEDERATION_REPLY_BUGS,
    *FEDERATION_ROUND_BUGS,
    *MONITORING_BUGS,
    *SECURE_SUM_BUGS,
    *PROBE_BUGS,
    *SURFACE_BUGS,
    *EVENT_BUGS,
    *MECHANISM_BUGS,
    *UNIT_BUGS,
    *DATA_BUGS,
    *RANDOMNESS_BUGS,
    *STATEMENT_BUGS,
    *BOOKS_BUGS,
    *TIMES_BUGS,
    *CORRELATION_BUGS,
    *SEPARATION_BUGS,
    *DYNAMIC_RANK_BUGS,
    *PHASE_BUGS,
    *SUBSPACE_BUGS,
    *RECOMMEND_BUGS,
    *ALLOCATION_BUGS,
    *SYNTHETIC_BUGS,
    *PREFERENCE_BUGS,
    *BUDGET_BUGS,
    *AUDIT_BUGS,
    *REPORT_BUGS,
    *DASHBOARD_BUGS,
    *HOSPITAL_BUGS,
    *KERNEL_BUGS,
    *COMPILER_BUGS,
    *TRIAL_BUGS,
)
