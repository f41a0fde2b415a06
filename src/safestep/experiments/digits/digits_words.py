"""What the page of a digits experiment says, for someone who never heard of a radius."""

from __future__ import annotations

from safestep.experiments.runner.experiment import Words

WORDS = Words(
    question="""
Training a network changes its parameters <var>θ</var> a little, again and again. One such change is a <em>step</em>, a
vector <var>p</var>; an <em>optimizer</em> proposes it from a batch of examples, and how long it is depends on a number
chosen beforehand, the <em>learning rate</em> <var>η</var>. Its direction is worked out where the network is now, and
holds only nearby. With a small rate training crawls; with a large one the step lands where the direction no longer
means anything, the loss jumps up, the next step is wilder still, and the run <em>diverges</em>. Which rate is too
large depends on the network, on the data and on the moment, and the usual way to find out is to try. Here every
training step is measured in units that mean the same for every model and moment. What becomes of careful, good and
hopeless rates when steps that go too far are shortened?
""",
    setup="""
<h3>How far is too far</h3>
<p>The network gives ten scores to a picture of a handwritten digit, one for each digit; the highest is its answer. If
a step moved all ten alike, no answer would change: what counts is how far they are pulled apart. To first order score
<var>k</var> moves by <var>a<sub>k</sub></var> for every unit of length of the step, and the <em>spread</em> of the
picture is <span class="math whole">Δ = max<sub>k</sub> a<sub>k</sub> − min<sub>k</sub> a<sub>k</sub></span>. The loss
contains the logarithm of a sum of exponentials of the scores. Along the step, its Taylor series (slope, curvature and
so on) tells what the loss will be only up to a distance, because the sum has zeros at complex lengths of the step:
none nearer than <var>π</var> / Δ. This is the <em>radius</em> <var>ρ</var>, taken for the picture of the batch that is
pulled apart most, and the <em>step ratio</em> <var>r</var> is the length of the step in units of it:</p>
<p class="equation"><span role="math" aria-label="rho equals pi over the largest spread; r equals the length of p over
rho"> ρ = π / max Δ, &nbsp; r = ‖p‖ / ρ</span></p>
<p class="under">r below 1: the series is sure to converge (scores taken to first order); above 1 nothing is
promised</p>
<h3>What is done about it</h3>
<p>After the optimizer has made a step, safestep measures <var>r</var> and multiplies the step by a scale <var>s</var>.
The <em>policy</em> says by which; <em>target</em> is a setting, usually 1:</p>
<ul>
<li><b class="fixed">fixed</b>: the plain optimizer. The step is measured and left alone.</li>
<li><b class="cap">capped</b>: <span class="math whole">s = min(1, target / r)</span>. A step that is too long is
shortened to the target; any other is not touched at all, and training is bit for bit that of the plain optimizer.</li>
<li><b class="pin">pin</b> (with SGD): <span class="math whole">s = target / r</span>. Every step is given the same
ratio, so no learning rate has to be chosen.</li>
</ul>
<p>The <em>effective</em> learning rate is <var>s</var> times <var>η</var>: the rate that would have given the step as
it was taken.</p>
<h3>The runs</h3>
<p>1797 pictures of <span class="whole">8 × 8</span> pixels, three quarters to learn from, one quarter kept unseen for
the test; a network of two hidden layers (GELU). One pass over the pictures to learn from is an <em>epoch</em>. The
<em>seed</em> fixes all that is drawn at random: the split, the first parameters, the order of the pictures.</p>
<p>Sources: P. Sao, “Ghosts of Softmax: Complex Singularities That Limit Safe Step Sizes in Cross-Entropy”, <a
href="https://arxiv.org/abs/2603.13552">arXiv 2603.13552</a> (2026), for the radius; the tutorials of <a
href="https://github.com/piyush314/ghosts-of-softmax">github.com/piyush314/ghosts-of-softmax</a> for the protocol
(“pin” is called ρ-set there). The pictures: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI
Machine Learning Repository (1998), as scikit-learn’s <code>load_digits</code> has them.</p>
""",
    captions={
        "test_accuracy": """How much it has understood: the share of unseen digits it names rightly. Guessing gives
about 10 %. Colour says the policy (<b class="fixed">fixed</b>, <b class="cap">capped</b>, <b class="pin">pin</b>), the
style of a line the learning rate. Where a capped run is the same run as the plain optimizer, its thin line lies on top
of the broad one.""",
        "training_loss": """How wrong the network is on what it learns from, on a logarithmic scale. A curve that leaves
at the top has blown up; one that comes back from there and stays level learns nothing any more.""",
        "effective_lr": """The rate that each run really used. Fixed rates are level lines. Where a capped curve is
below its base rate, the cap shortens steps; where it is on it, the cap does nothing.""",
        "largest_ratio": """The boldest step of each epoch. The dashed line is the target: capped runs may reach it and
not pass it, pinned ones lie on it, and nothing holds the fixed ones.""",
        "accuracy_over_seeds": """How much of it is luck: the same runs from other random beginnings. Dots close
together mean that the outcome does not depend on them.""",
    },
    reading="""
<dl>
<dt>accuracy</dt><dd>share of the unseen digits named rightly after the last epoch.</dd>
<dt>peak r</dt><dd>the largest step ratio <em>taken</em> in the whole run.</dd>
<dt>mean r, effective lr, radius ρ</dt><dd>means over the steps of the last epoch.</dd>
<dt>capped steps</dt><dd>share of the last epoch’s steps that the policy changed.</dd>
<dt>diverged</dt><dd>a loss, parameter or step ratio was not finite, or the loss of a batch exceeded ten times that of
guessing. What such a row says otherwise is chance.</dd>
<dt>mean, std, median</dt><dd>over several seeds; std is the standard deviation.</dd>
</dl>
""",
)
