"""The handwritten digits under fixed rates, capped and pinned steps."""

EXPERIMENTS = {"digits-sgd": "digits_sgd", "digits-momentum": "digits_momentum", "digits-adam": "digits_adam"}
