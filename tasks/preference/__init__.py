"""How labels of several questions, orders, samples and evaluators become one preference, and how far they agree."""
