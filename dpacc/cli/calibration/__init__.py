"""What `calibrate` and `plan` solve for and propose.

Read `free_quantity`, then `sampled_over_steps` for runs that are priced by more than one step, and
`sweep` for many at once; `recommendation` is what `plan` proposes. Offers `free_quantity`.
"""
