"""PPO (Schulman et al. 2017) against a reward model with a KL penalty, as in section 4.1 of the paper.

TRL removed its own in 1.13. `losses` is the arithmetic, `model` the two networks, `rollout` samples,
`episodes` turns samples into advantages, `trainer` is the loop, `checkpoint` makes it resumable. Importing
the modules below imports torch.
"""
