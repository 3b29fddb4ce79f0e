"""The errors a person is meant to read: each names the culprit and the remedy."""

from __future__ import annotations


class DpaccError(Exception):
    """Anything that dpacc refuses to do."""


class ConfigurationError(DpaccError, ValueError):
    """Bad input: a command line that meets it prints one line and exits with code 2."""


class PrivacyError(DpaccError, RuntimeError):
    """What was asked for cannot be shown to be private, so it was not done."""


class BudgetExhausted(PrivacyError):  # noqa: N818 - reads as what happened
    """One more step would spend more privacy than the plan allows."""
