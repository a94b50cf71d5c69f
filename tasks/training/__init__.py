"""Supervised finetuning, the reward model and PPO (sections 3.1 and 4.1 of the paper).

Every trainer is a plain function from examples and model folders to a model folder; `launch` runs it in a
child process. Folders hold safetensors, JSON and tokenizer files, never a pickle, and carry no path: on one
machine, with one thread, the same inputs give the same bytes wherever the folders lie.
"""
