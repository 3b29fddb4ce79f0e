"""Private synthetic text: records that a trained adapter writes, with a card beside them.

Read `released` (which adapter may write), `sources` (what is given to it, and is public),
`requests` (what each record begins with), `generation` (tokens in batches), `records` (what becomes
of them, and what is dropped), `batches` (stop anywhere, go on), `card`, and `likeness` to public
texts. Offers `requests_for`, `write_batch`, `BatchFile` and `write_with_card`.
"""
