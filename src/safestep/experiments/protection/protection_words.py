"""What the page of protection says, for someone who never heard of a radius."""

from __future__ import annotations

from safestep.experiments.runner.experiment import Words

WORDS = Words(
    question="""
A training step is a vector <var>p</var> added to the parameters. safestep measures how far it goes: the <em>step
ratio</em> <var>r</var> is its length divided by the <em>radius</em> along it, up to which the local picture of the
loss can be trusted. A <em>cap</em> shortens every step with an <var>r</var> above a target to the target, and leaves
every other step as it is, bit for bit. Measuring <var>r</var> exactly costs about as much as the training step itself.
Cheaper ways estimate it, look at a part of the batch, or do not look at all while steps are far inside. Each can be
wrong: then a step is longer than it should be although the guard believes it is not. Do they protect as the exact one
does?
""",
    setup="""
<h3>The audit</h3>
<p>After the guard has acted, the exact <var>r</var> of the step <em>as it was applied</em> is measured besides, at the
share <code>audit</code> of the steps. The guard does not get to know it. All that is said of <var>r</var> here is said
of this exact one, in units of the target. A guard that moved less would pass such an audit, too. So two more things
are counted: the steps that were clearly inside and were shortened all the same, and the steps that the guard called
inside but that are not, bit for bit, what the optimizer made of them.</p>
<h3>The ways of measuring</h3>
<ul>
<li><b>exact</b>: the derivative of the logits along the step.</li>
<li><b>probe</b>: the logits once more at a small fraction of the step; their difference tells <var>r</var>.</li>
<li><b>tiered</b>: nothing while the step is far inside, a sample of the batch when it is nearer, a probe when it is
near.</li>
<li><b>control</b>: exact again, at a target higher by one part in ten thousand. It protects as the exact one does;
what differs between the two at the end is chance, and as much chance is in every other comparison.</li>
</ul>
<h3>What is learned, and what goes wrong</h3>
<ul>
<li><b>digits SGD, momentum, Adam</b>: pictures of digits, by a perceptron with two hidden layers, in batches of 128;
three learning rates each, from careful to hopeless.</li>
<li><b>transformer Adam</b>: the same pictures, by a tiny transformer that takes every row of a picture for a
word.</li>
<li><b>text AdamW</b>: the next character of Python’s own standard library, by a tiny GPT; tested on a module of which
it never saw a line.</li>
</ul>
<p>Runs that differ only in how <var>r</var> is measured begin alike and meet the same batches. Every learning rate is
run undisturbed. One of each optimizer is also run with a disturbance that begins after a quarter of the run, without
notice, and ends as suddenly: a learning rate 10, 100 or 10 000 times as large, for one step or for 50; labels dealt
out anew for 50 steps; inputs (of text: their embeddings) 100 times as large for 50 steps. And, over the whole run,
batches of 8.</p>
<p>Sources: P. Sao, “Ghosts of Softmax: Complex Singularities That Limit Safe Step Sizes in Cross-Entropy”, <a
href="https://arxiv.org/abs/2603.13552">arXiv 2603.13552</a> (2026), for the radius; the rates of the digits: the
tutorials of <a href="https://github.com/piyush314/ghosts-of-softmax">github.com/piyush314/ghosts-of-softmax</a>. The
pictures: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository
(1998).</p>
""",
    captions={
        "audited_ratios": """For every length on the horizontal axis, the share of all audited steps that were longer.
A perfect cap falls straight down at 1. What a cheap method lets through is to the right of it. Where methods
agree their lines lie on each other, the first of the legend the broadest.""",
    },
    reading="""
<dl>
<dt>above 1.05 target, worst r / target</dt><dd>of the audited steps: the share that was clearly too long (aimed at:
not more than 0.5 %), and the longest (not more than 1.2).</dd>
<dt>capped, nothing measured</dt><dd>of all steps: the share that was shortened, and the share on which the guard did
not look at the model at all.</dd>
<dt>capped to</dt><dd>median of the exact r, over the target, at which shortened steps ended; 1 is neither too long nor
too short.</dd>
<dt>needlessly shortened</dt><dd>steps proposed with an exact r below the target / 1.05, and shortened.</dd>
<dt>inside, yet touched</dt><dd>steps that the guard called inside and whose parameters are not, bit for bit, what the
optimizer made; none may.</dd>
<dt>accuracy, loss</dt><dd>on what was kept for the test, after the last step; loss in nats.</dd>
<dt>accuracy lost, loss gained</dt><dd>against the exact cap on the same seeds: mean over pictures, and over text.
Negative is better than exact; the control says what chance does.</dd>
<dt>diverged</dt><dd>a loss or parameter was not finite, or the last loss is above ten times that of guessing.</dd>
</dl>
""",
)
