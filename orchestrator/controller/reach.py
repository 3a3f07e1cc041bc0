"""The controller's way to the cluster: attached when a pass has something to do there, and let go where it is silent.
In: how to attach, and how to look in where all there is to do is to take rows. Out: the cluster, or Unavailable.
`observe`, `act` and the controller itself go this way; whoever meets with silence drops it, and the next attaches anew.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from cluster.api import Cluster, Node
from jobs.spec import Unavailable


class Reach:
    """One for a controller."""

    def __init__(self, attach: Callable[[], Cluster], visit: Callable[[], Cluster] | None = None) -> None:
        self._attach, self._visit = attach, visit or attach
        self.attached: Cluster | None = None
        """The cluster, where this process is attached to it."""

    def cluster(self) -> Cluster:
        """The cluster, attached to where it is not. Raises Unavailable."""
        if self.attached is None:
            self.attached = self._attach()
        return self.attached

    def visited(self) -> Cluster:
        """The same, for who only takes what is there: nothing is started for him. Raises Unavailable."""
        if self.attached is None:
            self.attached = self._visit()
        return self.attached

    def nodes(self) -> Sequence[Node]:
        """The nodes that are alive now. Raises Unavailable, and lets go of the cluster then."""
        try:
            return self.cluster().nodes()
        except Unavailable:
            self.drop()
            raise

    def answers(self, segment_id: str) -> bool:
        """Whether the cluster answers when it is asked for a segment, be it known or not."""
        try:
            return segment_id in self.cluster().observe([segment_id])
        except Unavailable:
            return False

    def drop(self) -> None:
        """Let go of a cluster that does not answer."""
        self.attached = None
