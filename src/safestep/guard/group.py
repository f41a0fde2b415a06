"""The ranks that take a guard's steps together, known from the first step on."""

from __future__ import annotations

from safestep.distributed.consensus import ALONE, Peers
from safestep.distributed.ranks import Ranks
from safestep.recording.trained import Trained


class Group:
    """Asks once who the other ranks are: by the first step the model is sharded, and the optimizer prepared.

    Args:
        ranks: who they may be; None for a guard that asks no other rank.
        trained: the model and the parameters that they train together.
    """

    def __init__(self, ranks: Ranks | None, trained: Trained) -> None:
        self._ranks, self._trained = ranks, trained
        self._peers = None if ranks else ALONE

    def peers(self, step: int) -> Peers:
        """Return the other ranks, in this step."""
        if self._peers is None and self._ranks is not None:
            self._peers = self._ranks.peers(self._trained.model, self._trained.moving())
        peers = self._peers or ALONE
        if peers is not ALONE:
            peers.step = step
        return peers
