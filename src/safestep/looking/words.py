"""What the page of a log says beside figures and tables, for someone who never heard of a radius."""

from __future__ import annotations

from safestep.experiments.runner.experiment import Column, Words

WORDS = Words(
    question="""<p>A guard measured how far each step of an optimizer goes before it counted, as the <b>step ratio</b>
<var>r</var>: at <var>r</var> = 1 the step ends where the guard's picture of the loss does. A policy makes a
<b>scale</b> <var>s</var> of it, and the parameters moved by <var>s</var> times the step. With <var>s</var> = 1 a step
is as the optimizer made it. This page is made from the guard's log alone.</p>""",
    captions={
        "step_ratios": "How far each step was to go, and how far it went. The dashed line is what the policy aims at; "
        "grey dots are steps whose <var>r</var> was predicted from earlier ones, and not measured.",
        "status_shares": "What the guard did with the steps; each bar is a stretch of as many records.",
        "effective_lrs": "The learning rate that the optimizer had, and the same times the scale: what took effect.",
        "step_lengths": "The length of the whole step over all parameters, in their units.",
        "scales": "The factor that each step was multiplied by: 1 is untouched.",
    },
    reading="""<p>The upper table has a row for each tenth of the records. <var>r</var> is as measured, or else as
predicted; "applied" is what was left of the largest measured one. Shortened are the steps with a scale below 1. Lost
are those that were not taken, not finite or not measured.</p>""",
)

STRETCHES = (
    Column("label", "steps"),
    Column("r", "median r", ".3g"),
    Column("largest", "largest r", ".3g"),
    Column("share", "shortened", ".1%"),
    Column("lr", "effective rate", ".3g"),
    Column("taken", "largest r, applied", ".3g"),
    Column("scale", "median scale", ".3g"),
    Column("length", "median step length", ".3g"),
    Column("lost", "lost"),
)
STATUSES = (
    Column("label", "status"),
    Column("steps", "steps"),
    Column("share", "share", ".1%"),
    Column("first", "first at step"),
    Column("last", "last at step"),
)
