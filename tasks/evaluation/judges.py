"""Names of judges that are not one model."""

ORACLE = "micro_oracle"
"""The micro world's rules."""
JURY = "jury"
"""The mean of all models that judge, where there are several."""
