"""A finished adapter in use: asked here, or served by other programs.

Read `answering` (classes, answers and texts for given records), `plain_lora` (which adapters other
programs read as they are), `gguf_file` (one file for llama.cpp and Ollama, with what
`gguf_tokenizer` says) and `ollama` (what it is started by). Offers `answers_to`, `not_plain` and
`write_gguf`.
"""
