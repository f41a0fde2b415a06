"""What the pages of rate-spikes and resnet say."""

from __future__ import annotations

from safestep.experiments.runner.experiment import Words

_NATURAL = """
<p>Source: P. Sao, “Ghosts of Softmax”, <a href="https://arxiv.org/abs/2603.13552">arXiv 2603.13552</a> (2026), and its
public code, whose protocol is followed where it is told. Nothing is tuned to agree.</p>
"""
RATE_SPIKES = Words(
    question="""For a single step in mid-run the learning rate is up to 10 000 times too high. What accuracy is left
at the end? In the paper clipped and plain runs are lost, and a cap at <var>r</var> = 1 keeps 95.3, 93.9 and 71.6 % in a
transformer, a perceptron with LayerNorm and convolutions with BatchNorm.""",
    setup="""
<p>Digits, the first fifth held out and the rest one batch; Adam at 0.015, the spike after a quarter of the run; models
and sizes as in the paper’s code. <em>clip</em>: gradients to a norm of at most 1; <em>agc</em>: each unit’s gradient to
0.01 of its weights; <em>softmax-cap</em>: safestep’s softmax radius, the step to <var>r</var> ≤ 1, which is the rule of
the paper’s text; <em>gradient-cap</em>: that of its code, which measures rate times gradient instead of Adam’s step;
<em>safestep</em>: <code>attach(model, optimizer)</code> as it is.</p>
"""
    + _NATURAL,
    captions={
        "accuracy_after_spike": """Held-out accuracy at the end of the run, a panel for every model and a line for every
method; further right is better. A dot is a run, its colour the size of the spike, and a stroke the median. A cross is
what the paper reports after ×10 000, for both caps the same number.""",
    },
    reading="""
<dl>
<dt>accuracy</dt><dd>at the end, on what is held out, in training mode as in the paper’s code: BatchNorm normalises by
the held-out batch itself.</dd>
<dt>by running statistics</dt><dd>the same in evaluation mode; it differs only where there is BatchNorm.</dd>
<dt>standard errors apart</dt><dd>mean minus the paper’s median, over the standard error of our mean.</dd>
<dt>r of the spike</dt><dd>of the step that Adam proposed there, before it was shortened; median over seeds.</dd>
</dl>
""",
)
RESNET = Words(
    question="""Nobody disturbs the run, but at high rates its loss jumps by itself. Is <var>r</var> above 1 just
before, and below 1 at other times, so that one could tell? The paper says that accuracy falls as more steps lie above
1, and that a controller that makes every step <var>r</var> = 1 ends best, with ResNet-18 on CIFAR-10.""",
    setup="""
<p>Three residual blocks with BatchNorm on 8 × 8 digits (or CIFAR-10, where <code>folder</code> names its files), SGD
with momentum 0.9 and weight decay 0.0005, batches of 128, at three rates of the paper and one above, only watched;
then with every step pinned to four values of <var>r</var>. <var>r</var> is that of the whole step, momentum included,
on its own batch in training mode, exact, at every step; the paper logs one in fifty by a difference. No
augmentation.</p>
<p>A jump: the loss of the next batch is twice the median of the ten before, and 0.1 nats above it; where it stays high
that is one jump, and its later steps count as neither. That definition is ours: the paper counts steps above 1 and has
none of jumps.</p>
"""
    + _NATURAL,
    captions={
        "loss_and_r": """A panel for every rate, one seed. Orange is the loss of each batch, blue is <var>r</var> of
each step, both on the same axis, and a triangle on top marks a jump of the loss. If <var>r</var> told jumps, blue
would be above the dashed line just before the triangles and below it elsewhere.""",
        "r_before_jumps": """How many steps have an <var>r</var> above a threshold: of those that a jump follows
(orange) and of all others (grey), over all seeds. At the dashed line one reads the shares above 1. Far apart lines
would mean that <var>r</var> tells jumps; equal ones that it does not.""",
    },
    reading="""
<dl>
<dt>jumps after r &gt; 1</dt><dd>of the jumps of all seeds, how many follow a step of <var>r</var> above 1.</dd>
<dt>other steps of r &gt; 1</dt><dd>the same of the steps that no jump follows.</dd>
<dt>chance that a jump’s r is larger</dt><dd>than that of another step of its run: 0.5 if <var>r</var> tells nothing, 1
if it always does; <em>of five steps</em>: with the largest <var>r</var> of the step and the four before. Median over
seeds.</dd>
<dt>paper</dt><dd>ResNet-18 on CIFAR-10, ten epochs: another network on other data, to be compared in kind only.</dd>
</dl>
""",
)
