"""PPO (Schulman et al. 2017) against a reward model with a KL penalty, as in section 4.1 of the paper.

TRL removed its own in 1.13. `losses` is the arithmetic, `model` the two networks, `rollout` samples,
`episodes` turns samples into advantages, `update` learns from them, `evaluation` measures on prompts set aside,
`rules` says when to end and which policy is the result (`best` keeps it), `loop` is the loop, `trainer` what is before
and after it, `checkpoint` makes it resumable. Importing the modules below (but `rules`) imports torch.
"""
