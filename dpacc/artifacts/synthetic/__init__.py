"""Private synthetic text: records that a trained adapter writes, with a card beside them.

Read `released` (which adapter may write), `sources` (what is given to it, and is public),
`label_counts` (or is private, released with noise and charged),
`requests` (what each record begins with), `generation` (tokens in batches, or by `vllm_writer`),
`records` (what becomes of them, and what is dropped), `batches` (stop anywhere, go on) and `card`.
How near they come to public texts: `likeness` counts words; `embedded_likeness` looks at
`embeddings`, by `divergence` and by what a classifier learns (`train_on_synthetic`); `picture`
draws. Offers `requests_for`, `write_batch`, `BatchFile` and `write_with_card`.
"""
