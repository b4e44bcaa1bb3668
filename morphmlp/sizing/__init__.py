"""How large a cluster an experiment needs, what it costs, and where more GPUs stop helping.

`arithmetic` is the plain calculation from measured costs; `steps` and `losses` simulate what it leaves out (queues,
slow workers, nodes that go away); `scale` puts both over 8 to 1,024 GPUs. Nothing here makes up a number: what wasn't
measured or named is refused, with the command that measures it.
"""
