"""An update on its way: in one layout, whole or in fewer bytes.

Read `layout`, `packing`, then `compression` and `compressed_updates`; `said_notes` is how what
voids or qualifies a client's ε crosses with it. Offers `Compression`.
"""
