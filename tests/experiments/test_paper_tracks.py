"""The paper's radii over training: derivatives as by differences, singularities where Taylor series end, small runs."""

from __future__ import annotations

import math

import pytest
import torch
from torch.func import functional_call

from safestep.experiments import find
from safestep.experiments.paper.activations import distance, singularities
from safestep.experiments.paper.bottlenecks import PAPER, radii
from safestep.experiments.paper.ghosts import two_class_radius
from safestep.experiments.paper.one_step import derivative, downhill, length_of, random_direction
from safestep.experiments.paper.paper_experiment import against
from safestep.experiments.paper.paper_tasks import ACTIVATIONS, ClassToken, checkpoint
from safestep.experiments.report.figures import draw
from safestep.experiments.report.page import write_page
from safestep.experiments.runner.rundir import RunDirectory, read_records, read_results
from safestep.experiments.runner.session import Session
from safestep.experiments.runner.settings import SettingError
from safestep.zeros import nearest_zero

STUDIES = ("bottlenecks", "ghosts", "activations")


def transformer():
    torch.manual_seed(0)
    model, inputs = ClassToken().double().eval(), torch.rand(5, 64).double()
    step = random_direction(model, torch.Generator().manual_seed(1))
    return model, inputs, {name: 1e-3 * part.double() for name, part in step.items()}


def scores_of(model, at, inputs):
    """Attention scores by a walk through the transformer, with the parameters of a state."""
    held = []
    hooks = [block.query_key_value.register_forward_hook(lambda *seen: held.append(seen[-1])) for block in model.blocks]
    functional_call(model, at, (inputs,))
    for hook in hooks:
        hook.remove()
    scores = []
    for one in held:
        query, key, _ = one.chunk(3, -1)
        for q, k in zip(query.split(8, -1), key.split(8, -1), strict=True):  # a head at a time
            scores.append(q @ k.transpose(-1, -2) / math.sqrt(8))
    return torch.stack(scores)


# -- radii of a transformer's parts -----------------------------------------------------------------------------------


def test_what_modules_give_and_its_change_are_those_of_a_difference_and_no_hook_stays():
    model, inputs, step = transformer()
    layer = model.blocks[0].perceptron[0]
    (logits, hidden), (moved, change) = derivative(model, inputs, step, layer)
    held = []
    hook = layer.register_forward_hook(lambda *seen: held.append(seen[-1]))
    start = dict(model.named_parameters())
    with torch.no_grad():
        outputs = [
            functional_call(model, {name: p + sign * 1e-4 * step[name] for name, p in start.items()}, (inputs,))
            for sign in (0, 1, -1)
        ]
    hook.remove()
    torch.testing.assert_close((logits, hidden), (outputs[0], held[0]), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(moved, (outputs[1] - outputs[2]) / 2e-4, rtol=1e-5, atol=1e-8)
    torch.testing.assert_close(change, (held[1] - held[2]) / 2e-4, rtol=1e-5, atol=1e-8)
    assert not layer._forward_hooks


def test_the_three_radii_are_those_of_differences():
    model, inputs, step = transformer()
    start = {name: p.detach() for name, p in model.named_parameters()}
    there, back = ({name: p + sign * 1e-4 * step[name] for name, p in start.items()} for sign in (1, -1))
    with torch.no_grad():
        scores = (scores_of(model, there, inputs) - scores_of(model, back, inputs)) / 2e-4
        logits = (functional_call(model, there, (inputs,)) - functional_call(model, back, (inputs,))) / 2e-4
    kink, output, attention = radii(model, inputs, step)
    assert attention == pytest.approx(math.pi / float((scores.amax(-1) - scores.amin(-1)).max()), rel=1e-5)
    assert output == pytest.approx(math.pi / float((logits.amax(-1) - logits.amin(-1)).max()), rel=1e-5)
    layers = [block.perceptron[0] for block in model.blocks]
    values, changes = derivative(model, inputs, step, *layers)
    ratios = torch.cat([(h / dh).abs().flatten() for h, dh in zip(values[1:], changes[1:], strict=True)])
    assert kink == pytest.approx(float(ratios.quantile(0.01)), rel=2e-2)


def test_a_step_twice_as_long_reaches_the_radii_in_half_as_many():
    model, inputs, step = transformer()
    double = radii(model, inputs, {name: 2 * part for name, part in step.items()})
    assert double == pytest.approx([one / 2 for one in radii(model, inputs, step)], rel=1e-9)


def test_the_length_of_a_step_is_over_all_parameters():
    assert length_of({"a": torch.tensor([3.0]), "b": torch.tensor([[0.0, 4.0]])}) == 5.0


def test_the_thirds_of_the_papers_table_are_whole():
    for third in ("early", "middle", "late"):
        shares = [value for label, value in PAPER.items() if label.startswith(third) and "binds" in label]
        assert sum(shares) == pytest.approx(100)
    assert len(PAPER) == 18


def test_against_one_seed_or_none_there_is_no_error():
    assert against("x", [2.0], 1.0)["apart"] is None
    assert against("x", [], 1.0)["ours"] is None
    assert against("x", [2.0, 2.0], 1.0)["apart"] is None


# -- zeros ------------------------------------------------------------------------------------------------------------


def test_of_two_classes_the_two_class_radius_is_the_exact_one():
    torch.manual_seed(0)
    z, a = torch.randn(20, 2).double(), torch.randn(20, 2).double()
    pairs = two_class_radius(z, a, torch.randint(2, (20,)))
    torch.testing.assert_close(pairs, nearest_zero(z, a).radius, rtol=1e-9, atol=0.0)


def test_of_three_classes_it_can_be_too_long():
    """The example of the design note: the two best move alike, and a third does not."""
    z, a = torch.tensor([[2.0, 1.0, 0.0]]), torch.tensor([[1.0, 1.0, 0.0]])
    assert two_class_radius(z, a, torch.tensor([0])).item() == math.inf
    assert nearest_zero(z, a).radius.item() == pytest.approx(3.9014, abs=1e-4)


# -- singularities ----------------------------------------------------------------------------------------------------

ANALYTIC = {
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "silu": lambda z: z * torch.sigmoid(z),
    "softplus": lambda z: torch.log(1 + torch.exp(z)),
    "gelu-tanh": lambda z: 0.5 * z * (1 + torch.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z**3))),
}


def radius_of_convergence(function, centre, guess):
    """From Taylor coefficients by Cauchy's integral: how fast the largest of a window falls until a later one."""
    points, inner = 1024, 0.8 * guess
    circle = torch.polar(torch.full((points,), inner).double(), torch.arange(points).double() * (math.tau / points))
    sizes = torch.fft.fft(function(centre + circle)).abs() / points  # of the coefficients times inner^n
    low, high = sizes[30:45].max(), sizes[75:90].max()
    return inner * float(low / high) ** (1 / 45)


@pytest.mark.parametrize("activation", ANALYTIC)
@pytest.mark.parametrize("centre", [0.0, 0.7, -2.0])
def test_a_taylor_series_of_an_activation_ends_at_the_distance_of_its_nearest_singularity(activation, centre):
    ours = float(distance(activation, torch.tensor([centre]).double()))
    found = radius_of_convergence(ANALYTIC[activation], centre, ours)
    assert found == pytest.approx(ours, rel=0.04)
    x = torch.linspace(-3, 3, 7).double()  # what was continued is what the networks have
    torch.testing.assert_close(ANALYTIC[activation](x), ACTIVATIONS[activation]()(x), rtol=1e-6, atol=1e-9)


def test_gelu_by_tanh_is_singular_farther_from_the_axis_than_tanh():
    nearest = min(singularities("gelu-tanh"), key=lambda place: place.imag)
    assert nearest.imag == pytest.approx(2.755, abs=5e-4)
    argument = math.sqrt(2 / math.pi) * (nearest + 0.044715 * nearest**3)
    assert argument == pytest.approx(0.5j * math.pi, abs=1e-9)


def test_gelu_has_no_singularity_and_relu_its_kink():
    h = torch.tensor([-2.0, 0.0, 1.5])
    assert distance("gelu", h).tolist() == [math.inf] * 3
    assert distance("relu", h).tolist() == [2.0, 0.0, 1.5]


def test_at_the_radius_of_its_first_layer_a_tanh_network_is_singular():
    """The first preactivations move along a straight line, so that the pole is where it is said to be."""
    model, (x, y), _ = checkpoint(3, architecture="tanh", steps=2)
    layer = model.model[0]
    step = {name: part for name, part in downhill(model, (x, y)).items() if name.startswith("model.0.")}
    step = {name: step.get(name, torch.zeros_like(p)) for name, p in model.named_parameters()}
    (_, h), (_, dh) = derivative(model, x, step, layer)
    reach = distance("tanh", h.double()) / dh.double().abs()
    place = int(reach.argmin())
    h, dh = h.flatten()[place].double(), dh.flatten()[place].double()
    t = (complex(0.0, math.pi / 2) - float(h)) / float(dh)
    assert abs(t) == pytest.approx(float(reach.min()), rel=1e-12)
    near = torch.tensor(float(h) + (1 - 1e-6) * t * float(dh), dtype=torch.complex128)
    assert float(torch.tanh(near).abs()) > 1e5


def test_networks_differ_in_their_activation_alone():
    tanh, relu = (checkpoint(3, architecture=name, steps=0)[0] for name in ("tanh", "relu"))
    assert all(torch.equal(p, q) for p, q in zip(tanh.parameters(), relu.parameters(), strict=True))
    assert [type(module) for module in tanh.model][1::2] == [torch.nn.Tanh] * 2
    assert [type(module) for module in relu.model][1::2] == [torch.nn.ReLU] * 2


# -- runs -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=STUDIES)
def ran(request, tmp_path_factory):
    """A quick run of each study, with its page."""
    path, experiment = tmp_path_factory.mktemp(request.param), find(request.param)
    with RunDirectory(path) as directory:
        list(Session(directory, experiment, experiment.settings.parse(quick=True), [7]).run(jobs=1))
    draw(path)
    return experiment, read_results(path), read_records(path)[0], write_page(path).read_text(encoding="utf-8")


def test_a_quick_run_has_its_rows_figures_and_findings(ran):
    experiment, results, _, page = ran
    assert len(results["rows"]) == (1 if experiment.name == "bottlenecks" else 4)
    assert "This page is incomplete" not in page
    assert all(f'<figure id="{name}">' in page for name in experiment.own_figures)
    assert 2 <= len(experiment.findings(results)) <= 3


def test_what_a_quick_run_records_agrees_with_what_it_says(ran):
    experiment, results, records, _ = ran
    for row in results["rows"]:
        own = [record for record in records if (record["label"], record["seed"]) == (row["label"], row["seed"])]
        if experiment.name == "bottlenecks":
            assert [record["step"] for record in own] == list(range(9))
            shares = [value for label, value in row.items() if label.startswith("late") and "binds" in label]
            assert sum(shares) == pytest.approx(100)
            late = sorted(record["radii"][1] for record in own[6:])
            assert row["late: output radius"] == late[1]
        elif experiment.name == "ghosts":
            sizes = [math.hypot(*zero) for zero in own[0]["zeros"]]
            assert min(sizes) == pytest.approx(row["exact"]) and min(sizes) >= 1.0  # noqa: PT018 (one claim)
            assert all(imaginary > 0 for _, imaginary in own[0]["zeros"])
        else:
            assert own[0]["limit"] == row["limit"] > 0
            assert (row["limit"] < 0.1) == (row["architecture"] == "relu")


def test_a_larger_batch_or_no_samples_are_refused():
    with pytest.raises(SettingError, match="samples="):
        find("ghosts").settings(samples=385)
    with pytest.raises(SettingError, match="steps="):
        find("bottlenecks").settings(steps=1)
    with pytest.raises(SettingError, match="architectures="):
        find("activations").settings(architectures=("linear",))
