"""What stands between Solon and lm-eval (EleutherAI's lm-evaluation-harness), which runs in an environment of its own.

`environment` makes that environment and knows its tasks, `running` asks one task of a server, `results` reads what
came out. lm-eval is never imported here.
"""
