"""How each model of the zoo is measured: the table of docs/models.md."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch

from safestep import SafestepWarning, SoftmaxRadius, Watch, attach
from zoo import ZOO

PAGE = (Path(__file__).parents[2] / "docs" / "models.md").read_text(encoding="utf-8")
TABLE = {row.split("|")[1].strip(" `"): row.split("|")[2].strip() for row in PAGE.splitlines() if row.startswith("| `")}


@pytest.mark.parametrize("case", ZOO.values(), ids=str)
def test_the_table_says_how_each_model_is_measured(case):
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SafestepWarning)
        warnings.simplefilter("ignore", FutureWarning)  # the old weight norm
        model = case.build()
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
        guard = attach(model, optimizer, policy=Watch(), radius=SoftmaxRadius(method="exact"))
        batch = case.batch(0, torch.float32)
        case.loss(model(*batch.args, **batch.kwargs), batch.labels).backward()
        optimizer.step()
    assert guard.last.method == f"{TABLE[case.name]}/train"


def test_the_table_has_no_other_rows():
    assert TABLE.keys() == ZOO.keys()
