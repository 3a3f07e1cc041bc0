"""The controller: from plans to segments, one idempotent pass after another.
In: the store, the site and a cluster. Out: orders to the cluster and facts in the store.
The commands drive it; the ledger reads what it wrote.
"""

from orchestrator.controller.controller import Controller, utcnow

__all__ = ["Controller", "utcnow"]
