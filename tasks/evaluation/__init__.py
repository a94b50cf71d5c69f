"""The figures that say whether it works: ratings from comparisons, and what the texts themselves show."""
