"""What the page of noisy-descent says: what noise and learning-rate schedules do to gradient descent."""

from __future__ import annotations

from safestep.experiments.runner.experiment import Words

WORDS = Words(
    question="""
Find the lowest point of the bowl <span class="math whole">f = x₁² + 2x₂²</span>, from (−5, −2). The <em>gradient</em>
(2x₁, 4x₂) says which way is uphill; one <em>step</em> walks the other way, by the <em>learning rate</em> <var>η</var>
times the gradient. In training, the gradient of all the data is too expensive: a few samples are drawn, and their mean
gradient is taken for it, right on average, but off by chance every time. Here the chance is added by hand. Near the
bottom the gradient is small and the noise is not: there a step is mostly chance. The noise gathered must die out, so
the rates have to become small. And the descent must be able to get to the bottom from anywhere, so the sum of all
rates must not be bounded. Which schedule of the rate does both?
""",
    setup="""
<p>A normal random number (standard deviation <code>scale</code>, for a batch divided by the root of its size) is added
to each component of each gradient. A schedule multiplies the base rate <code>rate</code> by a factor that falls as the
steps are counted by <var>t</var>, from <code>first</code> on (2, as in the published runs):</p>
<ul>
<li><b>constant</b>: 1.</li>
<li><b>inverse</b>: 1 / (1 + β<var>t</var>).</li>
<li><b>polynomial</b>: 1 + β<var>t</var> to the power −α.</li>
<li><b>piecewise constant</b>: multiplied by <code>drop</code> each time <var>t</var> has grown by
<code>stair</code>.</li>
<li><b>exponential</b>: e to the power −<var>t</var> times <code>decay</code>.</li>
</ul>
<p>On a bowl, mean <var>m</var> and variance <var>v</var> of each coordinate can be computed for every step. With
<var>h</var> = 2 for x₁ and 4 for x₂, and σ the standard deviation of the noise:</p>
<p class="equation"><span role="math" aria-label="the new m is 1 minus eta h, times m; the new v is the square of 1
minus eta h, times v, plus eta squared sigma squared">m ← (1 − ηh) m, &nbsp; v ← (1 − ηh)² v + η²σ²</span></p>
<p class="under">from m = the start, v = 0; the mean of f is m₁² + v₁ + 2(m₂² + v₂)</p>
<p>Nothing of this <em>law</em> is shared with the simulation, which takes the steps by PyTorch’s own SGD optimizer, on
a row of numbers for each run. The mean of so many runs is not the exact mean: it is off by chance, and the
<em>standard error</em> (SE) says by how much usually. A right simulation is now and then 2 SE off, rarely 3, and
hardly ever 4. With 20 000 runs a <var>t</var> that is one too small puts the exponential run hundreds of SE off.</p>
<p>Sources: A. Zhang, Z. C. Lipton, M. Li and A. J. Smola, “Stochastic Gradient Descent”, in <a
href="https://d2l.ai/chapter_optimization/sgd.html">Dive into Deep Learning</a>, for the bowl, the noise and the
schedules; H. Robbins and S. Monro, “A Stochastic Approximation Method”, Annals of Mathematical Statistics 22 (1951),
for what the sums of the rates and of their squares have to do.</p>
""",
    captions={
        "descent_schedules": """The factor of each schedule, step by step. A straight line falling on this scale is an
exponential.""",
        "descent_losses": """The mean of f over the runs, and its law dashed. Half of the runs are in the band, between
the quartiles. A rate that stays as it is levels off at its floor; one that falls too fast levels off before it gets
there.""",
        "descent_traces": """One run of each schedule, all with the same random numbers and from the same start. Where
a single run ends is chance; how widely it moves about at the end is not.""",
    },
    reading="""
<dl>
<dt>mean, var</dt><dd>mean and variance of each coordinate after the last step, over the runs. Without noise there is
one run, and no variance.</dd>
<dt>mean f, law</dt><dd>of the height f after the last step, over the runs; and the exact expected f at that step.</dd>
<dt>SE off</dt><dd>the largest difference from the law, in standard errors, of five numbers at the last step: both
means, both variances, mean f. To each standard error the rounding of the arithmetic is added; without noise it is all
there is.</dd>
<dt>Σ η so far, Σ η for ever</dt><dd>the sum of the rates of the steps that were taken, and of these and all that could
follow; inf means that it has no bound. A rate with a bounded sum may stop on the way, and no number of further steps
helps.</dd>
<dt>most, at any step</dt><dd>of several seeds: the largest over all of them, at the last step, and at any recorded
one.</dd>
</dl>
""",
)
