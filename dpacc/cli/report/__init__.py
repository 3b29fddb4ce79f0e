"""One document on runs for whoever reads no code.

Read `gathered`, which reads and prices a run's folder (`agreement` asks independent accountants,
`audits` reads what audits proved), `words` and `sections`, which say it in plain words, `figures`,
and `one_run`, which puts them in order as `content`; `html_page` and `pdf_page` render that, each
with a template beside it. Offers `gather`, `report_of_run`, `html_page` and `pdf_page`.
"""
