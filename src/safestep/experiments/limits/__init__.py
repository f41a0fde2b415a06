"""Which statistic of a step, held at which target, lets any learning rate train as well as the best tuned one."""

EXPERIMENTS = {"limits": "limits"}
