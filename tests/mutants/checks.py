"""Where the checks are."""

DPACC = "tests/dpacc"
AUDIT = f"{DPACC}/audit/test_rehearsal.py::test_an_honest_engine_keeps_its_claim_narrowly"
ENGINE = f"{DPACC}/step/test_engine.py"
TWO_RANKS = (
    f"{DPACC}/step/test_two_ranks.py"
    "::test_the_noised_sum_does_not_depend_on_the_number_of_ranks[ragged]"
)
DOCTOR = f"{DPACC}/doctor/test_engine_room.py::test_the_engine_is_healthy"
