"""Holes that a server, a stranger or a restored disk could use in a federation."""

from __future__ import annotations

from tests.mutants.bug import Bug
from tests.mutants.checks import DPACC
from tests.mutants.planting import Patch

_CODE = f"{DPACC}/test_remote_code.py"

FEDERATION_HOLE_BUGS = (
    Bug(
        "a base's own code after a yes",
        "whoever answers a terminal's question lets a folder's Python run beside the data",
        (
            Patch(
                "dpacc.models",
                "output_loading_info=True, trust_remote_code=False, **options",
                "output_loading_info=True, **options",
            ),
            Patch(
                "dpacc.models",
                "from_pretrained(source, trust_remote_code=False)",
                "from_pretrained(source)",
            ),
        ),
        (
            f"{_CODE}::test_a_folder_with_code_of_its_own_is_refused_though_somebody_says_yes",
            f"{_CODE}::test_a_configuration_that_asks_for_a_model_of_its_own_is_not_followed",
        ),
    ),
)
