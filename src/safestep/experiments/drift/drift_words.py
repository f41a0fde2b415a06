"""What the pages of the drift studies say."""

from __future__ import annotations

from safestep.experiments.runner.experiment import Words

_SOURCE = """
<p>Source of the task, the protocol and the secant laws: M. Blanco Valentin, ENABOL / kappa, “Experiment 000:
One-Layer Global Throttle Sanity Check”, <a
href="https://github.com/manuelblancovalentin/kappa_budgeting">github.com/manuelblancovalentin/kappa_budgeting</a>. Of
the matrix <var>G</var>: J. Martens, “New Insights and Perspectives on the Natural Gradient Method”, JMLR 21
(2020).</p>"""

_DRIFT = """
A <em>teacher</em> turns four numbers <var>x</var> into two numbers <var>y</var> by a fixed matrix; a
<em>student</em>, a matrix too, has to find it from 1000 examples. The loss, half the squared error, is a bowl over
the student’s eight parameters. A <em>step</em> moves them by <span class="math whole">p = −η g</span>: <var>g</var>
is the gradient, the <em>learning rate</em> <var>η</var> is chosen once. With <var>λ</var>, the largest curvature of
the bowl, a step multiplies the distance to the bottom by <span class="math whole">1 − ηλ</span> along its steepest
direction: training is stable while the <em>margin</em> <span class="math whole">m = ηλ</span> is below 2. Now a
sensor is turned up: all <var>x</var> are multiplied by a <em>gain</em> <var>γ</var>, the answers stay, and the bowl
bends <span class="math whole">γ²</span> times as strongly. A gain of 4 makes a calm margin of 0.54 an 8.7, and the
loss grows by <span class="math whole">(1 − ηγ²λ)²</span> a step until the numbers overflow. Does a throttle prevent
it?"""

_THROTTLE = """
<p>The <em>throttle</em> multiplies the whole step by one number <var>α</var>, so that its margin does not exceed an
aim <var>χ</var> below 2. For this it has to know the curvature.</p>
<p class="equation"><span role="math" aria-label="alpha equals the smaller of 1 and chi over m">α = min(1, χ /
m)</span></p>
<p class="under">a step with m ≤ χ is not touched, bit for bit</p>
<ul>
<li><b>The secant law</b>, as published, compares two gradients in a row: <span class="math whole">m = ηC</span>,
<span class="math whole">C = ‖g<sub>t</sub> − g<sub>t−1</sub>‖ / ‖θ<sub>t</sub> − θ<sub>t−1</sub>‖</span>, no less
than its own running mean. It costs next to nothing, but it looks back: switched on when the drift comes, <em>its
first step is unprotected</em>. (Switched on before, it takes the change of the data for curvature, and the step is
far too short.) Orders 1 and 2 move <var>α</var> gradually from 0, and have a stability limit of their own.</li>
<li><b>The curvature on the batch</b>, the default, looks along the proposed step on its own batch: <span class="math
whole">m = pᵀGp / (−g·p)</span>, how much the loss bends over how steeply it goes down. There is no unprotected step,
and on a bowl every step with a margin below 2 goes down.</li>
</ul>"""

MAP = Words(
    question=_DRIFT,
    setup=f"""{_THROTTLE}
<p>One map per law. Each cell is one run on all the data, at one learning rate and one gain, and all begin at the same
parameters. The cells are computed at once, in float64, by the formulas of the library.</p>{_SOURCE}""",
    captions={
        "drift_maps": """Orange has diverged. Pale orange came back, but only after the loss had been above its start:
under the secant law of order 0 that is the unprotected first step. Pale blue never was above its start. The dashed
line is where theory puts the limit without a throttle."""
    },
    reading="""<dl>
<dt>diverged</dt><dd>share of the cells whose loss was above the <code>limit</code> at any step, or not finite.</dd>
<dt>ηγ²λ &gt; 2</dt><dd>share of the cells that theory says diverge without a throttle.</dd>
<dt>loss rose</dt><dd>share of the cells in which it was ever above its start, by more than one part in a
thousand.</dd>
<dt>largest loss</dt><dd>at any step, over the cells that did not diverge.</dd>
</dl>""",
)

_RUN = """One run, step by step: loss, distance to the solution, gradient, curvatures, margin and <var>α</var>.
<var>C</var> and “secant law” are recorded in every run, also where they do not decide."""

THROTTLE = Words(
    question=_DRIFT,
    setup=f"""{_THROTTLE}
<ul>
<li><b>A</b>: the calm case. A small rate, small batches, no drift.</li>
<li><b>warm-up</b>: a large rate, all the data in every step; still no drift, and well inside the limit.</li>
<li><b>B</b>: after the warm-up the inputs drift, and nothing is done about it.</li>
<li><b>C</b>: the same drift under a throttle, once by each law.</li>
</ul>{_SOURCE}""",
    captions={
        "drift_losses": """All runs begin with the same parameters and the same drifted data. Without a throttle the
loss grows by the same factor in every step, a straight line on this scale. The height of the secant law’s peak is
what its unprotected first step costs; by the curvature on the batch there is none.""",
        "drift_alphas": """What each step is multiplied by. It rises while the error along the steepest direction
goes, and settles where the steepest and the flattest direction shrink equally fast. Near the end the loss is at the
last digits of a float32, and so is what is measured.""",
        **dict.fromkeys(("drift_no_throttle", "drift_secant", "drift_curvature", "drift_calm", "drift_warmup"), _RUN),
        "drift_data": """What the student is to learn, before the drift: each number of the answer against each of the
input.""",
        "drift_histograms": "How the inputs and the answers are distributed, before the drift.",
    },
    reading="""<dl>
<dt>first, largest, last loss</dt><dd>measured before each step: the first is that of the drifted data before anything
was done. A step that moves nothing, at the end of float32, is not recorded.</dd>
<dt>α of step 0, 1, 50</dt><dd>what the step was multiplied by; steps are counted from the drift.</dd>
<dt>steps to 1e-4</dt><dd>the first step that began with a loss below 10⁻⁴.</dd>
<dt>steps with αηλ &gt; 2</dt><dd>steps that, as applied, were beyond the limit of the steepest direction. A step that
hardly points there may be.</dd>
<dt>diverged</dt><dd>a loss was not finite, or the last one is above ten times the first.</dd>
<dt>largest / first loss</dt><dd>of several seeds: in the worst; 1 means that it never rose above where it began.</dd>
<dt>highest loss that rose</dt><dd>the largest loss after which the next one was higher. Below about 10⁻¹¹ that is the
rounding of float32.</dd>
<dt>growth off theory</dt><dd>how far, at most, the factor between two losses of B was from (1 − ηγ²λ)², from the
second step on.</dd>
<dt>second α off, α of step 50 off</dt><dd>how far, at most, it was from χ/(ηγ²λ) and from
2/(ηγ²(λ<sub>max</sub> + λ<sub>min</sub>)), for the secant law.</dd>
</dl>""",
)

OPTIMIZERS = Words(
    question="""
A student learns in peace. Then, from one step to the next, all its inputs are multiplied by a <code>gain</code>,
while the answers stay. The loss bends about the square of that more sharply, and a learning rate that was stable may
not be any more. The throttle shortens a step whose <em>ratio</em> <var>r</var> is above <var>χ</var>/2; at <span
class="math whole">r = 1</span> the parabola along the step has climbed back to where it started. Plain gradient
descent always steps downhill on its batch. Momentum and Adam step along what earlier batches asked for, now and then
uphill on the batch at hand; such a step is <em>held</em>: the parameters stay, the optimizer’s memory moves on. Does
the throttle protect all of them, and what does it cost where nothing is wrong?""",
    setup=f"""<ul>
<li><b>linear, two-layer</b>: a matrix, and a layer of 32 tanh units, learn a fixed affine map from 1000 samples; the
loss is half the squared error. <b>classifier</b>: a perceptron learns pictures of digits; the loss is the
cross-entropy.</li>
<li><b>quiet, harsh</b>: a learning rate at which nothing happens without control, and one at which the run is lost.
Both were chosen on runs of other seeds. Adam is never lost for certain on a regression.</li>
<li><b>none</b>: measured, not touched. <b>curvature</b>: the throttle with the curvature on the batch. <b>secant</b>:
with the published secant, which compares two gradients in a row. <b>both</b>, of the classifier: the tighter of
curvature and softmax radius.</li>
</ul>
<p>Runs of a seed begin alike and meet the same batches; the guard is attached from the first step.</p>{_SOURCE}
<p>The pictures: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository
(1998), as scikit-learn’s <code>load_digits</code> has them.</p>""",
    captions={
        "slowdown": """Each line is a case in which a run without control is well. On the vertical line, control costs
nothing; left of it, it helps; in the grey it costs more than was asked for. Medians over the seeds; hollow: the
secant law; on the right the share of held steps."""
    },
    reading="""<dl>
<dt>diverged</dt><dd>the loss of all samples is not finite, or by the end not below half of what it was when the drift
came, or before the first step: a classifier that has gone blind is lost, too.</dd>
<dt>first, peak, final loss</dt><dd>of all samples: when the drift came, the highest after that, the last one; peak /
first is the worst over the seeds.</dd>
<dt>steps to target</dt><dd>steps after the drift until the loss of all samples is at what quiet runs without control,
of three other seeds, have come to 40 % of the way (their median).</dd>
<dt>steps, of those without</dt><dd>median over the seeds, divided by that of the same runs without control. “nan”
where these diverge or do not get there.</dd>
<dt>held, shortened, proposed uphill</dt><dd>of the steps up to the target, the warm-up included: not taken at all;
shortened; uphill on their own batch as the optimizer proposed them, whatever became of them.</dd>
</dl>""",
)
