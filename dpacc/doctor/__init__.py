"""Is what ran what was accounted? Findings in plain words, for a run's folder or for a script."""
