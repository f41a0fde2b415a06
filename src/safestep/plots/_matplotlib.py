"""matplotlib, or the error that names the extra which brings it."""

from __future__ import annotations

from safestep._torch.extras import need

matplotlib = need("matplotlib", "plots")
