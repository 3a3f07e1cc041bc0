"""The way from a site to its cluster.
In: the site's `ray` key. Out: a Cluster; the embedded Ray is started where the site asks for it.
The controller calls it when a pass has something to do there, the commands when they need logs.
"""

from __future__ import annotations

import os

from cluster.api import Cluster, connect, find_local, start_local
from jobs.spec import Unavailable
from orchestrator.site import Site


def is_embedded(site: Site) -> bool:
    """True where lowtide runs the site's Ray itself: `local`, or `auto` without RAY_ADDRESS."""
    return site.ray == "local" or (site.ray == "auto" and not os.environ.get("RAY_ADDRESS"))


def attach(site: Site) -> Cluster:
    """The site's cluster; Unavailable where it does not answer or cannot be started.

    The embedded Ray is one node, so it stands for the site's first zone.
    """
    if is_embedded(site):
        return connect(start_local(str(site.state), next(iter(site.zones))))
    return connect(_address(site))


def attach_if_running(site: Site) -> Cluster:
    """The site's cluster, for who only reads: an embedded Ray that does not run is not started, but Unavailable."""
    if not is_embedded(site):
        return connect(_address(site))
    address = find_local(str(site.state))
    if address is None:
        raise Unavailable("the embedded Ray does not run")
    return connect(address)


def _address(site: Site) -> str:
    return os.environ["RAY_ADDRESS"] if site.ray == "auto" else site.ray
