"""Who may make a request, decided from its head alone, before its body is read or parsed.

Each route says who may ask (:class:`service.http.route_table.Policy`); anything else asks for a key that may predict.
"""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.types import Scope

from service.http.hosts import Hosts
from service.http.keys import Keys, given_key
from service.http.route_table import Policy


class Access:
    """Called with the scope of each HTTP request and the policy of its route."""

    def __init__(self, keys: Keys, hosts: Hosts) -> None:
        self._keys = keys
        self._hosts = hosts

    def __call__(self, scope: Scope, policy: Policy) -> None:
        """Where no key stands in the way, a page of another site must not use its visitor's browser for writing.

        :raises Misdirected: if it is for another server. :raises Unauthorized: without a valid key.
        :raises Forbidden: if the key, or the browser's page, may not.
        """
        self._hosts.check_host(scope)
        if policy.access == "open":
            return
        if self._keys.required:
            self._keys.check(given_key(Headers(scope=scope)), policy.access)
        else:
            self._hosts.check_page(scope)
