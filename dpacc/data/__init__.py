"""What one record is: how it is read, what of it is learned, and whose it is.

Read `records` and `record_files` for how records are read, `shape` for what fields they have, then what of them is learned:
`supervision` of texts, `chats` and `chat_spans` of conversations, `labelling` of classes, `pairs` of
two answers, which are `sequences` of one example. `entity_spans` finds entities in tagged words, and
`clinical` reads corpora in which they are marked. `privacy_units` says whose each example is,
`joined_texts` refuses texts that were joined before they were cut, `overlap` finds private examples
among others. Offers `read_records`, `tokenize_examples` and `count_units`.
"""
