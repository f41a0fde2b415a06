"""Contract 8, a citizen of torch: compiled and wrapped models."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import safestep
from safestep import SoftmaxRadius, Status
from zoo import ALL, METHODS, ZOO, Training, applied_ratio, pair
from zoo.asserts import PRECISION


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize("to", ["compiled", "raw"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_compiled_models(backend, to):
    torch._dynamo.reset()
    plain, training = pair("SGD", big=True)
    guard, reference = None, plain.attach()
    compiled = torch.compile(training.model, backend=backend)
    guard = safestep.attach(compiled if to == "compiled" else training.model, training.optimizers)
    for index in range(3):
        plain.step()
        batch = training.case.batch(index, training.dtype)
        training.optimizers[0].zero_grad()
        F.cross_entropy(compiled(*batch.args), batch.labels).backward()
        training.optimizers[0].step()
    assert set(guard.history["status"]) == {Status.CAPPED}
    assert guard.history["ratio"] == pytest.approx(reference.history["ratio"], rel=1e-4)
    assert guard.history["applied_ratio"] == pytest.approx([1.0] * 3)


@METHODS
def test_a_model_compiled_in_place(method):
    torch._dynamo.reset()
    training = Training(ZOO["mlp"], ALL["SGD"], big=True)
    guard = training.attach(method=method)
    training.model.compile(backend="eager")
    assert applied_ratio(training, training.step) == pytest.approx(1.0, rel=PRECISION[method])
    assert guard.last.status is Status.CAPPED


def assert_capped_at_one(wrap, method):
    """Train one step of a wrapped model far outside the radius."""
    training = Training(ZOO["mlp"], ALL["SGD"], big=True)
    wrapped = wrap(training.model)
    guard = safestep.attach(wrapped, training.optimizers, radius=SoftmaxRadius(method=method))
    batch = training.case.batch(0, training.dtype)

    def act():
        F.cross_entropy(wrapped(*batch.args), batch.labels).backward()
        training.optimizers[0].step()

    assert applied_ratio(training, act) == pytest.approx(1.0, rel=PRECISION[method])
    assert guard.last.status is Status.CAPPED


@METHODS
def test_data_parallel_without_devices(method):
    assert_capped_at_one(nn.DataParallel, method)


@METHODS
def test_distributed_data_parallel_of_one(tmp_path, method):
    import torch.distributed as dist

    if not dist.is_available():
        pytest.skip("this torch has no distributed package")
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    try:
        assert_capped_at_one(nn.parallel.DistributedDataParallel, method)
    finally:
        dist.destroy_process_group()


@METHODS
@pytest.mark.parametrize("wrap", [torch.func.functional_call])
def test_a_functional_call_of_the_model_is_seen(wrap, method):
    """Under functional_call the hooks fire, and its gradients may reach the parameters themselves."""
    training = Training(ZOO["mlp"], ALL["SGD"], big=True)
    guard = training.attach(method=method)
    batch = training.case.batch(0, training.dtype)

    def act():
        parameters = dict(training.model.named_parameters())
        F.cross_entropy(wrap(training.model, parameters, batch.args), batch.labels).backward()
        training.optimizers[0].step()

    assert applied_ratio(training, act) == pytest.approx(1.0, rel=PRECISION[method])
    assert guard.last.status is Status.CAPPED
