"""What a GPU does in one pass where torch needs several: opt-in, and checked before it is used.

Read `choice` first: it says whether the kernels are used. `lora_forward` makes a layer's output,
`outer_products` makes, measures or adds each example's gradient of it, `clipped_sums` adds what was
clipped, `cross_entropy` makes a head's losses; `agreement` compares them, and the words of
`dpacc.randomness.aes_words`, with what the processor gives. All other rooms have the same
arithmetic in torch and ask `fused_on`; until somebody chose these, nothing here is imported that
needs Triton. Offers `choose` and `fused_on`.
"""
