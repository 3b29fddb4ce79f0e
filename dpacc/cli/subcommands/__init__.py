"""Commands of a command, and those that start recipes, loaded when they are called.

`federate_tune` and `federate_app` are of a group; `tune_trials` is what the first does with
`--try`. Read `recipes`, which there are and where they lie, `launch_line`, what is run, and
`recipe_commands`, which run it: also where only wheels are installed. Offers `script_of` and
`line_for`.
"""
