"""What a run leaves behind: adapter, proof, card and pictures.

Read `run_folder`, then what it has `kept` beside the adapter, `proof`, `model_card`,
`progress_chart`, `pictures`, `attack_chart` and `compute_chart` (with `axes_style`, in
`figure_files`) and `hub`; `document` is what reports are made of; `earlier_runs` says what a
run costs together with those before it, `compliance` what standards and laws ask of it,
`synthetic` writes text by its adapter, and `serving` asks it, or hands it to other programs.
Offers `save_run`, `new_run_folder` and `rows_for`.
"""
