"""What a run's folder keeps beside its adapter, so that the adapter can be used by its name alone.

Read `run_settings` (by `configuration_text`), what the run was told, and `base_weights`, by which
its base is known again; then `metrics`, where it stood after each step, and `appended_lines`,
which only grow. Offers `settings_of_run`,
`weights_checksum` and `Course`.
"""
