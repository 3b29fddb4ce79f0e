"""A finished adapter in use: asked here, or served by other programs.

Read `answering` (classes, answers and texts for given records) and `plain_lora` (which adapters
other programs read as they are). Offers `answers_to` and `not_plain`.
"""
