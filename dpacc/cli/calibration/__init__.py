"""What `calibrate` and `plan` solve for, propose and compare.

Read `free_quantity`, then `sampled_over_steps` for runs that are priced by more than one step, and
`sweep` for many at once; `recommendation` is what `plan` proposes, `fits_table` what it says of
several machines. Offers `free_quantity`.
"""
