"""A document as plain data, and the two pages that it becomes.

Read `content`, the blocks that a report is made of, then `html_page`, one file that fetches
nothing, and `pdf_page`, tagged for screen readers, each with a template beside it. Offers
`Document`, `html_page` and `pdf_page`.
"""
