"""An update on its way: in one layout, whole or in fewer bytes.

Read `layout`, `packing`, then `compression` and `compressed_updates`. Offers `Compression`.
"""
