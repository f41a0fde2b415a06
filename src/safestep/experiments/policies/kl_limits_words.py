"""What the page of policy-optimisation says, for someone who never heard of a policy."""

from __future__ import annotations

from safestep.experiments.runner.experiment import Words

WORDS = Words(
    question="""
A policy is a network that chooses actions. It acts for a while; what it did well is made likelier, by several passes of
an optimizer over the same batch; then it acts again. The batch tells what to do only for policies near the one that
gathered it. How near is measured in nats: the mean Kullback–Leibler divergence between the old and the new
probabilities. Today’s libraries look at it between the steps, and stop the passes once it is too large. But the step
that made it too large was taken by then. Here each step is shortened <em>before</em> it stands, so that the predicted
divergence stays at the threshold. What does that do at learning rates ten and a hundred times too high?
""",
    setup="""
<p>The task is a pole on a cart (Barto, Sutton and Anderson 1983) with five forces to choose from; an episode ends when
the pole falls, the cart leaves the track, or after 200 steps. Proximal policy optimisation (PPO, Schulman et al., <a
href="https://arxiv.org/abs/1707.06347">arXiv 1707.06347</a>) with clip 0.2: 32 carts gather 64 steps each, and four
passes in minibatches of 512 make an update. The policy, a perceptron with 64 hidden units, learns by Adam; its rate is
what is multiplied. The value function is a network of its own with a fixed rate, and nothing limits it.</p>
<ul>
<li><b>none</b>: PPO’s clip alone.</li>
<li><b>early stopping</b>: before each step the divergence from the policy that gathered is estimated from the actions
taken, as stable-baselines3 does; above the threshold the policy takes no further step on this batch.</li>
<li><b>KL limit</b>: <code>KLRadius(max_kl, reference=...)</code> under <code>Cap(1.0)</code>.</li>
<li><b>half the way</b>: the same under <code>Cap(0.5)</code>: a step takes at most half of the way that is left.</li>
</ul>
""",
    captions={
        "limits_by_rate": """
Above: how long the pole stands, of at most 200 steps, in the last five batches. Below: the largest divergence that any
update of a run had come to over its whole batch. Lines are medians over the seeds, small marks the seeds.
""",
    },
    reading="""
The divergence of a batch is measured over all its samples after the last step of its update; that after a step, over
the minibatch of the step. “Came out / limit” is the latter over the threshold, for the steps that the KL limit
shortened: predicted is 1. “Held” steps were not taken at all: their minibatch was at the threshold already, and they
led farther away.
""",
)
