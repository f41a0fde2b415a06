"""What the page of limits says, for someone who never heard of a radius."""

from __future__ import annotations

from safestep.experiments.runner.experiment import Words

WORDS = Words(
    question="""
Whoever trains a network tries learning rates until one works: too small and training crawls, too large and it fails.
The rate matters only because it decides how long a step is, and how long a step may be can be measured, before it is
taken, by some number <var>r</var> of the step on its batch. A <em>cap</em> shortens steps whose <var>r</var> is above a
target: then a rate that is too large should do no harm. A <em>pin</em> makes every step so long that <var>r</var> is
the target: then no rate is needed. Which number should <var>r</var> be, and which target, so that <em>any</em> rate
trains as well as the best tuned one, in other models and with other optimizers than those it was chosen on?
""",
    setup="""
<h3>What is measured</h3>
<p>A step changes the scores (logits) that the network gives to its classes, each sample’s by some vector
<var>a</var>.</p>
<ul>
<li><b>largest</b>: the spread <span class="math whole">max a − min a</span> over π, of the sample in the batch that is
pulled apart most. Below 1 it is a guarantee for every sample.</li>
<li><b>mean</b>: the mean of the same over the samples.</li>
<li><b>curvature</b>: <span class="math whole">pᵀGp / (−2 g·p)</span> on the batch, with the gradient <var>g</var> and
the Gauss–Newton matrix <var>G</var>: 0.5 is as far as the batch’s own quadratic model goes down along the step, 1 is
where it has climbed back.</li>
<li><b>default</b>: curvature over 0.45 or mean over 0.5, whichever is larger (0.9 and 1.5 under SGD, 0.9 and 0.5 with
momentum); here the slope <var>g·p</var> counts √ν of what the batch says, with the share ν of it that the next batches
find.</li>
<li>Mean, curvature and default are measured on some rows of each batch, <b>curvature-whole</b> on all of them.</li>
</ul>
<h3>What is run</h3>
<ul>
<li><b>plain</b>: no guard, a warm-up over a tenth of the run and a cosine to 0, as one tunes it, at every rate.</li>
<li><b>cap</b>: the same, rate and schedule included, with every step’s <var>r</var> held at or below the target.</li>
<li><b>pin</b>: no rate, no warm-up, no schedule; <b>pin-decay</b>: the target goes to 0 over the last 30 % of the
run.</li>
</ul>
<p>Text: the next character of Python’s own standard library, by a tiny GPT and by an LSTM, tested on a module of which
nothing was learned. Digits: by a perceptron, by convolutions with BatchNorm, by a small transformer over the rows of
the picture (“vit”). Optimizers: SGD without and with momentum 0.9, AdamW, and Muon with AdamW for what is no matrix
between layers, both under one guard. The rate 1 is a first guess for each task and optimizer; the best is looked for
among those of the plain runs.</p>
<h3>Chosen and held-out</h3>
<p><em>Tuning</em> runs compare targets, on seeds of their own and on two of the tasks, the GPT and the perceptron; the
table marks the best target of each number. <em>Held-out</em> runs are of fresh seeds and of all tasks, at one target
for each number, written down beforehand. No row of the table is of both, and nothing is chosen by a held-out
run.</p>
<p>Sources: P. Sao, “Ghosts of Softmax”, <a href="https://arxiv.org/abs/2603.13552">arXiv 2603.13552</a> (2026), for the
spread; J. Martens and R. Grosse, <a href="https://arxiv.org/abs/1503.05671">arXiv 1503.05671</a> (2015), for the
quadratic model along a step; K. Jordan et al., “Muon” (2024).</p>
""",
    captions={
        "gap_over_rates": """Held-out runs, mean over seeds; a panel for every task and optimizer. Up is worse: the
<em>gap</em> to the best plain run of the same seed, in units of what is allowed (0.02 nats of loss, half a point of
accuracy); in the shaded part a run is as good as the best tuned one. A limit that makes the rate unimportant is a level
line there, from the best rate to the right edge; the grey line of the plain runs shows what it saves. Marks above
“none” are runs without a rate. A triangle on the upper edge is worse than the frame, or lost.""",
        "gap_over_targets": """Tuning runs alone: the worst gap over seeds and over rates from the best one up, against
the target in units of the one that the held-out runs have. A number that is easy to steer by has a wide valley, at the
same place in every panel; where the valleys of two panels are apart, no target serves both.""",
    },
    reading="""
<dl>
<dt>gap</dt><dd>how much worse a run ends than the best plain run of the same task, optimizer and seed: in nats of
held-out loss (text), or as a share of the answers (digits). Negative is better than the best tuned run; inf is a run
whose loss is no number.</dd>
<dt>any rate</dt><dd>over all optimizers and seeds, and the rates from the best plain one up; “at” names the worst. In
the rows of “plain” they are those of the runs without a guard.</dd>
<dt>no rate, with decay</dt><dd>the same of the pinned runs.</dd>
<dt>within allowed</dt><dd>share of all these runs whose gap is at most 0.02 nats, or 0.005 of the answers. The best
target in tuning is that with the largest share over both tasks; of equal ones that with the smaller median gap.</dd>
<dt>best in tuning</dt><dd>yes at a target other than that of the held-out rows says that the tuning runs of this
page would have chosen otherwise.</dd>
<dt>shortened, held or undone, median r</dt><dd>of one run: share of its steps that the guard made shorter, share that
it did not take at all, since they went uphill on their own batch or were not finite, and r of the steps as the
optimizer proposed them.</dd>
<dt>lost</dt><dd>the loss or a parameter was not finite, or the optimizer’s state was.</dd>
</dl>
""",
)
