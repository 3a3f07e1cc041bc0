"""The store: jobs, segments, ledger rows, intensities and the lease in one database.
In: a SQLAlchemy URL. Out: short transactions on mapped rows.
Commands write wishes; the controller writes facts; the report reads both.
"""

from orchestrator.store.store import Store

__all__ = ["Store"]
