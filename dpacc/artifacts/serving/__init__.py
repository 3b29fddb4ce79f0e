"""What other programs serve: adapters that they read as they are.

Read `plain_lora`: which adapters those are. Offers `not_plain`.
"""
