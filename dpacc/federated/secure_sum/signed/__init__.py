"""Sums whose clients check one another's keys, and that all were told the same.

Read `signatures`, what is signed and by whom; `agreement`, a client's part, and `roll`, the
server's. Offers `SigningKeys`, `SignedRoll` and `require_confirmed`.
"""
