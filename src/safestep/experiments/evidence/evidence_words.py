"""What the pages of the comparisons say, for someone who doubts."""

from __future__ import annotations

from safestep.experiments.runner.experiment import Words
from safestep.lab.rivals.registry import RIVALS

_PROTOCOL = """
<h3>The protocol</h3>
<p>The same first weights, batches, batch order, number of steps and evaluation for everybody, by seed. Text: the next
character of Python’s own standard library, by a tiny GPT and by an LSTM, tested on a module of which nothing was
learned. Digits: by a perceptron, by convolutions with BatchNorm, by a small transformer over the rows of the picture
(“vit”). The rate 1 is a first guess for each task and optimizer.</p>
<p><em>The tuned plain run</em> has the rate and schedule that are best on average over the tuning seeds 0 and 1: of
rates a factor √10 apart around the first guess, under three schedules (constant, a warm-up over a tenth of the run with
a cosine to 0, linear to 0), and, in rates, of all its other rates under the cosine. Everybody is compared with the run
of that rate and schedule on the same seed.</p>
<p>A run is <em>good</em> within 0.02 nats of held-out loss (text) or half a point of accuracy (digits) of it. A run
whose loss or parameters are not finite is lost, and counts as infinitely far behind; none is left out.</p>
<p>safestep’s default limit was chosen on the same seeds 0 and 1, on the text GPT and the digits perceptron; the
other tasks had no part in it. Nobody’s constants are chosen here: packages and papers have their
own.</p>
"""
_CLIPPINGS = """
<p><b>clip</b>: <code>clip_grad_norm_</code> at 1. <b>agc</b>: adaptive gradient clipping at 0.01 (A. Brock et al.,
<a href="https://arxiv.org/abs/2102.06171">arXiv 2102.06171</a>). <b>zclip</b>: the norm against its running mean and
deviation (<a href="https://arxiv.org/abs/2504.02507">arXiv 2504.02507</a>). <b>adagc</b>: every tensor’s norm against
its own running mean (<a href="https://arxiv.org/abs/2502.11034">arXiv 2502.11034</a>). <b>safestep</b>:
<code>safestep.attach(model, optimizer)</code>, nothing else; <b>safestep-fixed</b>, where it was asked for: the same,
but its target does not follow the schedule of the rate.</p>
<p>AdamW, Muon and Lion hardly feel how long a gradient is, so that a rule that scales all gradients by one factor can
do little there against a rate that is too high; it can under SGD.</p>
"""
_READING = """
<dl>
<dt>gap</dt><dd>how much worse a run ends than the tuned plain run of its task, optimizer and seed: nats of
held-out loss, or a share of the answers. Negative is better than the tuned run; inf is lost.</dd>
{more}
<dt>time</dt><dd>of the processor for the median step of a run, forward and backward included, in units of a plain one
of the same task and optimizer. What a method does at a few steps alone is not in it.
The runs were not timed side by side, and the models are small, so that most of a guard is Python: read it coarsely;
<code>safestep bench run</code> measures it well.</dd>
</dl>
"""

RATES = Words(
    question="""
A learning rate that is too large ruins a run, so rates are searched for, and gradients are clipped in the hope that
this saves the day. Over eight decades of rates: where is a run as good as a tuned one, when it is trained
plainly, when its gradients are clipped by one of four rules, and when safestep limits its steps?
""",
    setup=_PROTOCOL
    + "<h3>Who takes part</h3>"
    + _CLIPPINGS
    + """
<p>All of these have the warm-up and the cosine. Optimizers: SGD without and with momentum 0.9, AdamW, Muon with AdamW
for what is no matrix between layers, and Lion.</p>
""",
    captions={
        "gap_over_rates": """Median over seeds; a panel for every task and optimizer. Up is worse: the gap to the
tuned plain run of the seed, in units of what is allowed; in the shaded part a run is good. A method that makes the
rate unimportant is a level line there, up to the right edge. A triangle on the upper edge is worse than the frame, or
lost.""",
    },
    reading=_READING.format(
        more="""
<dt>good from the tuned rate up</dt><dd>share of the runs at the tuned rate or a higher one that are good: what is
asked of a rule that is to protect. Worst and mean gap are over the same.</dd>
<dt>good beside hindsight</dt><dd>the same beside the plain run that turned out best on the very seed, of all rates and
schedules. Of some twenty runs that end equally well one is best by chance: on 450 test digits by half a point to a
whole one.</dd>
<dt>good of all rates</dt><dd>the same over the whole grid. No rule that shortens steps can help a rate that is far too
small.</dd>"""
    ),
)

NO_RATE = Words(
    question="""
Some optimizers find their rate themselves, and safestep can set every step to the limit that it measures. How near does
each come to AdamW with the best of many rates under the best of three schedules, if nothing is tuned at all?
""",
    setup=_PROTOCOL
    + """
<h3>Who takes part</h3>
<p>Each once, as its authors recommend it, by their packages where there is one (<code>pip install '.[peers]'</code>),
by their papers otherwise. “Corrected” is with an option of Adam’s bias correction, which short runs turn out to
need.</p>
<dl>
"""
    + "".join(
        f'<dt>{rival.name}</dt><dd>{rival.about} (<a href="https://arxiv.org/abs/{rival.source}">paper</a>'
        f"{', with a cosine' if rival.schedule == 'cosine' else ''})</dd>\n"
        for rival in RIVALS.values()
    )
    + """<dt>k-fac-rescaling</dt><dd>every AdamW direction, scaled to the minimum of the exact quadratic model along it
(<a href="https://arxiv.org/abs/1503.05671">paper</a>)</dd>
<dt>safestep-pin</dt><dd><code>Pin()</code>: AdamW’s direction, every step as long as the default limit allows</dd>
<dt>safestep-pin-decay</dt><dd>the same with a target that goes to 0 over the last 30 %</dd>
<dt>safestep-rate-1</dt><dd>AdamW at the rate 1,
without any schedule, under the default limit</dd>
</dl>
""",
    captions={
        "gaps_without_rate": """A dot for every run, a stroke for the median seed, the best method on top; a panel for
every task. Left is better: the gap to the tuned plain run of the seed, in units of what is allowed; in the shaded
part a run is good. A triangle on the right edge is worse than the frame, or lost.""",
    },
    reading=_READING.format(
        more="""
<dt>part of the run to the target</dt><dd>after which part of its steps the median run was good: as good as the tuned
run at its <em>end</em>. Runs are looked at ten times. Nothing where most never got there.</dd>"""
    ),
)

SPIKES = Words(
    question="""
Something goes wrong in mid-run: the rate is a hundred or ten thousand times too high for a step or for fifty, the
labels are shuffled, the inputs are a hundred times too large. Does the run come back, how soon, and what is it worth at
its end?
""",
    setup=_PROTOCOL
    + """
<p>Here all runs are of AdamW at one rate with warm-up and cosine; gaps are to the undisturbed plain run at that rate.
The disturbance begins after a quarter of the run.</p>
<h3>Who takes part</h3>
"""
    + _CLIPPINGS,
    captions={
        "gaps_after_disturbances": """A dot for every run of every task, a stroke for the median, the best method on
top; a panel for every disturbance. Left is better: the gap at the end to the undisturbed plain run of the seed, in
units of what is allowed; in the shaded part the run has lost nothing. A triangle on the right edge is worse than the
frame, or lost.""",
    },
    reading=_READING.format(
        more="""
<dt>steps to recover</dt><dd>from the end of the disturbance until the median loss of ten steps is what that of the ten
steps before it was; of the median run that recovers.</dd>"""
    ),
)
