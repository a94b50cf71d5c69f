"""What can be known before a training takes anything: memory, tokenizers and rows, from small files alone.

No weights are read. `preflight` is the whole of it; the command `./solon preflight` shows the memory half of it.
"""
