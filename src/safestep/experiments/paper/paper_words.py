"""What the pages of the studies say."""

from __future__ import annotations

from safestep.experiments.runner.experiment import Words

_SOURCE = """
<p>Source: P. Sao, “Ghosts of Softmax”, <a href="https://arxiv.org/abs/2603.13552">arXiv 2603.13552</a> (2026), and its
public code. What is called <em>paper</em> is from its abstract and text; where the protocol is not told, ours is our
own, and nothing is tuned to agree.</p>
"""
_STEP = """
<p>A step changes the scores (logits) of every sample. <var>r</var> is the spread of that change, largest score minus
smallest, over π, of the sample that is pulled apart most, by exact forward-mode differentiation; it is proportional to
the length of the step. From the same checkpoint one step is taken at every <var>r</var> from 0.01 to 100, ten a decade.
Gradient, <var>r</var> and loss are of one batch of 384 samples of the training data, accuracy is of held-out ones. The
model is in evaluation mode: BatchNorm normalises by its running statistics. Training: AdamW at one constant rate, the
first guess of <code>limits</code>.</p>
"""
_READING = """
<dl>
<dt>onset</dt><dd>the smallest <var>r</var> at which the loss on the batch has grown by the factor in the settings
(<var>inflation</var>), between two points by logarithms; inf if it has not up to 100.</dd>
<dt>least kept up to r = 1</dt><dd>the smallest share of the accuracy that any step of <var>r</var> ≤ 1 keeps, the
worst of all directions and seeds; above 100 % it has grown.</dd>
<dt>half the accuracy</dt><dd>the <var>r</var> at which half of the accuracy is lost, down the gradient.</dd>
<dt>spread</dt><dd>standard deviation of log10 of the onset; 0.3 is a factor of 2.</dd>
</dl>
"""

PHASE_TRANSITION = Words(
    question="""Is there one length at which a step turns from harmless to harmful, whatever the model and however far
it is trained? The paper says so: in units of <var>r</var> no model loses accuracy below 1, and all collapse between 1
and 10.""",
    setup=_STEP + "<p>Six architectures, three checkpoints, the gradient and a random direction.</p>" + _SOURCE,
    captions={
        "accuracy_kept": """Held-out accuracy after one step, over that before. Left of the dashed line the paper has no
loss at all, and right of it, up to 10, the collapse. Solid lines go down the gradient, dotted ones in a random
direction.""",
        "loss_inflation": """The loss on the batch after the step, over that before. A loss of nearly 0 is soon
multiplied, long before any answer changes.""",
    },
    reading=_READING,
)
RANDOM_DIRECTIONS = Words(
    question="""Twenty random directions at one model: is <var>r</var> = 1 where the loss begins to grow in each, so
that <var>r</var> tells what a length does not?""",
    setup=_STEP + "<p>Twenty directions of independent normal components at trained models.</p>" + _SOURCE,
    captions={
        "random_directions": """The loss on the batch after one step, over that before, a dotted line a direction and a
solid one the gradient. Lines on top of each other have their onset at the same <var>r</var>; the dashed line is where
the paper has it."""
    },
    reading=_READING,
)
TEMPERATURE = Words(
    question="""Dividing the logits by a temperature changes every length in the loss, and <var>r</var> with it. If harm
sets in at a fixed <var>r</var>, onsets at several temperatures that are far apart as lengths come together as
<var>r</var>: in the paper their spread falls from 0.992 to 0.164.""",
    setup=_STEP
    + """<p>A perceptron, 120 steps of training, down the gradient. <em>Trained at T</em>: with logits over T from the
start, as in the paper’s code. <em>Read at T</em>: trained at 1, the logits divided afterwards. The paper does not say
of which logarithm, over what and in which unit its first number is; ours is the standard deviation of log10 over the
temperatures of a seed, its mean over seeds and the standard error of that.</p>"""
    + _SOURCE,
    captions={
        "over_temperatures": """The loss on the batch after one step, over that before, a line a seed: at the left
against <var>r</var>, at the right against the length of the step, on the same axis."""
    },
    reading=_READING,
)
BOTTLENECKS = Words(
    question="""A transformer has more than one place where the Taylor series of its loss can end: the softmax of its
output, that of its attention, and whatever its feed-forward layers do. Which is nearest, and when? In the paper the
feed-forward part binds early, the output late, the attention never.""",
    setup="""<p>As in the paper: a small transformer for digits, all images in every step, AdamW, every step as long as
the smallest of three radii along it, by exact forward-mode differentiation. Output and attention: π over the largest
spread of the change of the scores. Feed-forward: |<var>h</var>| over the change of the preactivation <var>h</var>, of
which one in a hundred is smaller: how far a kink at 0 would be. Here 128 images instead of 1257, for time.</p>"""
    + _SOURCE,
    captions={
        "radii_over_training": """The radius of each part along the step of AdamW: the lowest line binds. All three
fall as the model learns.""",
        "which_binds": """In which share of the evaluations each part has the smallest radius; dotted: the paper.""",
    },
    reading="""<p><em>Apart</em>: from the paper’s number, in standard errors over our seeds; none where all seeds
agree. Ours differ from run to run
as seeds and images do.</p>""",
)
GHOSTS = Words(
    question="""Along a step the loss is the logarithm of a sum of exponentials, which has no real zero but complex
ones, the ghosts. The nearest ends the Taylor series. Where are they, and do they come nearer while a model learns?""",
    setup="""<p>Four models at five moments of their training, along the negative gradient of a batch of 128 samples.
The logits’ change is exact, and the zeros of every sample are computed and certified; the paper’s code draws those of
the label and its best rival alone. It gives no numbers for this.</p>"""
    + _SOURCE,
    captions={
        "zeros_in_the_plane": """A dot is the zero nearest to the origin of one sample, of the perceptron and the first
seed; below the real axis is the mirror image. Along the step <var>t</var> is real, and 1 where the bound π/Δ of the
batch ends: no zero lies in the disc. The circle goes through the nearest one. Above each: how many of
the samples are in the frame; the rest are farther away.""",
        "zeros_over_training": """How far away the zeros are, as the length of a step: the median of the samples, the
nearest of a batch, and the bound. The nearest one comes closer as the models learn, the others hardly; it stays just
beyond the bound.""",
    },
    reading="""<p><em>Two-class radius</em>: √(δ² + π²)/|slope| of the label and its best rival, which the paper’s code
takes for the radius of a sample. It is <em>too long</em> where a zero lies nearer.</p>""",
)
ON_ACTIVATIONS = Words(
    question="""An activation such as tanh has complex singularities, and ReLU a kink: there the Taylor series of the
loss ends too, maybe long before the zeros of the softmax. Does a step notice? The paper ranks activations by it: exact
GELU, SiLU and softplus, tanh, ReLU.""",
    setup=_STEP
    + """<p>The perceptron with seven activations, the same weights to begin with, down the gradient. A preactivation
<var>h</var> that changes by <var>ḣ</var> reaches a singularity <var>s</var> after |<var>s</var> − <var>h</var>| /
|<var>ḣ</var>| steps; the smallest of all samples and units counts, as in the paper, which has no numbers for it.</p>"""
    + _SOURCE,
    captions={
        "over_activations": """The loss on the batch after one step, over that before, a line a seed. Dashed: the bound
of the softmax. Dotted: where the first preactivation reaches a singularity. GELU has none; ReLU’s kinks lie far left
of the frame."""
    },
    reading="""<dl><dt>distance</dt><dd>of the nearest singularity from the real axis</dd><dt>onset</dt><dd>the smallest
<var>r</var> at which the loss has doubled</dd><dt>spread</dt><dd>standard deviation of log10 of the onset, in
<var>r</var>, or in units of the smaller radius, of activation or softmax</dd></dl>""",
)
