"""The micro world: a templated world of errands and a 1M-parameter model that was taught to live in it.

What it is for: a real model for the demo, the tests and the benchmarks, without a hub. What it is not:
evidence that small models can reason. The base model is *taught* to comply, criticise, revise and judge;
the demo shows that the pipeline moves behaviour on errands the alignment stages never saw.
"""
