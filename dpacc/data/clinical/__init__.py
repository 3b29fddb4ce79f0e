"""Annotated clinical and biomedical texts in the formats in which corpora are handed out.

`annotated_text` is a text with its mentions, and how it becomes records of words and tags;
`pubtator` reads BC5CDR and NCBI-disease, `i2b2` the concepts of 2010 and the standoff files of
n2c2 2018. Nothing of a text is quoted in an error. Offers `AnnotatedText`, `read_pubtator`,
`read_i2b2_concepts` and `read_standoff`.
"""
