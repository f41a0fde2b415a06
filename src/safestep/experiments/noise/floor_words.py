"""What the page of noise-floor says: why gradient descent at a constant rate never settles, and how high it stays."""

from __future__ import annotations

from safestep.experiments.runner.experiment import Words

WORDS = Words(
    question="""
Gradient descent on a bowl, <span class="math whole">f = x₁² + 2x₂²</span>, at a constant <em>learning rate</em>
<var>η</var>, where every gradient is off by chance. The descent comes near the bottom, and then every step throws it a
little off again, by about <var>η</var> times the noise. It ends in a cloud around the bottom and never settles. How
high the cloud is on average is the <em>noise floor</em>. How does it depend on the rate and on the batch, and where is
there none?
""",
    setup="""
<p>A step multiplies the variance of a coordinate with the curvature <var>h</var> (2 along x₁, 4 along x₂) by (1 −
<var>ηh</var>)² and adds the new noise, <var>η</var>²σ². The two are in balance at</p>
<p class="equation"><span role="math" aria-label="v equals eta sigma squared over h times 2 minus eta h"> v = ησ² / (h
(2 − ηh))</span></p>
<p class="under">and the floor is v₁ + 2v₂, for σ = 1 and η = 0.1 it is 0.059</p>
<p>While <var>ηh</var> is small, this is proportional to <var>η</var>: half the rate, half the floor. At <span
class="math whole">ηh = 2</span> there is no balance any more: with <var>h</var> = 4 this is at <var>η</var> = 0.5.
There the cloud grows at every step; beyond, by a constant factor, and the runs <em>diverge</em>. The mean of
<var>b</var> gradients has 1/<var>b</var> of the variance of one, and so the floor is 1/<var>b</var> as high. Three
kinds of noise are run:</p>
<ul>
<li><b>Gaussian</b>: normal random numbers with the variance <code>scale</code>²/<var>b</var>.</li>
<li><b>with replacement</b>: f is the mean of <code>samples</code> bowls of one shape whose bottoms are scattered. At
every step <var>b</var> of them are drawn, some perhaps twice, and their mean gradient is taken. The scatter is chosen
so that a single gradient has the same variance as the Gaussian noise.</li>
<li><b>without replacement</b>: <var>b</var> different ones. Of <var>n</var> samples, this leaves <span class="math
whole">(n − b) / (n − 1)</span> of the variance: with all of them in every batch there is no noise.</li>
</ul>
<p>Each cell is an ensemble of <code>runs</code> runs, by PyTorch’s own SGD optimizer, until what is left of the start
is a ten-thousandth of the floor. Slow directions take more steps: at small rates both, near the limit the steep one,
which jumps from side to side. Where there is no floor, <code>unstable_steps</code> steps are taken, and the height
reached is written down in its place.</p>
<p>Source: A. Zhang, Z. C. Lipton, M. Li and A. J. Smola, “Stochastic Gradient Descent”, in <a
href="https://d2l.ai/chapter_optimization/sgd.html">Dive into Deep Learning</a>, for the bowl, the start and the noise.
The law is the fixed point of the linear recursion that a step is.</p>
""",
    captions={
        "noise_floor_gaussian": """Gaussian noise. Dots are floors, lines the law. On these scales a straight line that
rises by one decade a decade is proportionality.""",
        "noise_floor_replacement": """Batches drawn with replacement. The same floors: only the variance of the noise
matters, not its shape.""",
        "noise_floor_distinct": """Batches of different samples. The larger the batch, the lower its floor compared
with drawing with replacement.""",
    },
    reading="""
<dl>
<dt>floor, law</dt><dd>mean of f over the runs after the last step, above the lowest value of f; and what it tends to,
inf where there is no balance.</dd>
<dt>floor / η</dt><dd>at the smallest rate of the settings. Where the floor is proportional to the rate, this is the
factor.</dd>
<dt>standard error, SE off</dt><dd>by how much the floor is usually off by chance, with so many runs; and the
difference between floor and law in this unit, “–” where there is no floor, or no noise because every batch holds all
samples.</dd>
<dt>worst of five</dt><dd>the largest distance of five numbers from the exact law of that very step, in standard
errors: the means and variances of x₁ and x₂, and the mean of f. This law exists where there is no floor, too.</dd>
<dt>diverged</dt><dd>some run was more than a million away from its start. At the limit itself the cloud grows so
slowly that this takes far longer.</dd>
</dl>
""",
)
