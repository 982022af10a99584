"""Lists of IP networks, such as `link-local,10.0.0.0/8`, and the check whether an address is in such a list."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeAlias

Address: TypeAlias = "ipaddress.IPv4Address | ipaddress.IPv6Address"
Network: TypeAlias = "ipaddress.IPv4Network | ipaddress.IPv6Network"
DEFAULT_DENIED: Final = "link-local,metadata"
NAMED: Final[Mapping[str, tuple[str, ...]]] = {
    "link-local": ("169.254.0.0/16", "fe80::/10"),
    # The metadata services that are not link-local: AWS, Google, Azure, Alibaba, Oracle.
    "metadata": ("fd00:ec2::/32", "fd20:ce::254", "168.63.129.16", "100.100.100.200", "192.0.0.192"),
    "loopback": ("127.0.0.0/8", "0.0.0.0/8", "::1", "::"),
    "private": ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7"),
}
_NONE: Final = "none"
_WITH_IPV4: Final = tuple(map(ipaddress.IPv6Network, ("::/96", "::ffff:0:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48")))
"""IPv6 networks in whose addresses the last 32 bits are an IPv4 address: compatible, translated (RFC 2765), NAT64
(RFC 6052, 8215)."""


def parse_items(text: str) -> tuple[str, ...]:
    """Split a list of networks, such as `link-local,10.0.0.0/8`, into its items, and check each item. Raises ValueError
    with the allowed items."""
    items = tuple(item.strip().lower() for item in text.split(",") if item.strip())
    for item in items:
        try:
            if item not in NAMED and item != _NONE:
                ipaddress.ip_network(item)
        except ValueError as error:
            raise ValueError(
                f"addresses, networks (10.0.0.0/8) and {', '.join(NAMED)}, comma-separated, or none: {error}"
            ) from None
    if _NONE in items and len(items) > 1:
        raise ValueError("either the one word none, or a list of networks")
    return items


@dataclass(frozen=True, slots=True)
class Networks:
    """A list of IP networks, and the search for the network that contains an address."""

    items: tuple[tuple[str, Network], ...]
    """Pairs (item, network), with each item as the setting names it. An item such as `private` stands for several
    networks and has several pairs."""

    @classmethod
    def parse(cls, items: Iterable[str]) -> Networks:
        """Return the list of the networks that the items name, such as `private` or `10.0.0.0/8`. Raises ValueError for
        any other item."""
        written = ((item, NAMED.get(item, (item,))) for item in items if item != _NONE)
        return cls(tuple((item, ipaddress.ip_network(network)) for item, networks in written for network in networks))

    def find_item(self, address: str) -> str | None:
        """Return the item of this list whose network contains an IP address, or None if no network contains it.

        Raises:
            ValueError: `address` is a host name.
        """
        for form in _forms(_read(address)):
            for item, network in self.items:
                if form in network:
                    return item
        return None


_LOOPBACK: Final = Networks.parse(("loopback",))
_DEFAULT: Final = Networks.parse(parse_items(DEFAULT_DENIED))


@dataclass(frozen=True, slots=True, eq=False)
class EgressRule:
    """The rule that forbids tools to connect to some addresses over HTTP. A worker has one rule."""

    denied: Networks = _DEFAULT
    """The addresses that NOETL_WORKER_EGRESS_DENY lists."""
    own_ports: set[int] = field(default_factory=set)
    """Probe ports of this worker and its supervisor. Tools may not connect to these ports over loopback, because probes
    answer anybody on the same machine. The worker adds the ports when its probes listen."""

    def reason(self, address: str, port: int | None) -> str | None:
        """Return why an address is denied, or None if it is allowed. Raises ValueError for a text that is no address.

        Args:
            address: IP address as text.
            port: port of the connection. None checks the address alone.
        """
        item = self.denied.find_item(address)
        if item is not None:
            return f"its NOETL_WORKER_EGRESS_DENY has {item}"
        if port in self.own_ports and _LOOPBACK.find_item(address) is not None:
            return f"port {port} is the worker's own probe port: use another address"
        return None


def _read(text: str) -> Address:
    """Parse an address as resolvers do: 2852039166, 0xa9fea9fe, 0251.254.43518 and `169.254.169.254.` are the same.

    Raises:
        ValueError: the text is a host name.
    """
    try:
        return ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        try:
            return ipaddress.IPv4Address(socket.inet_aton(text.rstrip(".")))
        except (OSError, UnicodeError):
            raise ValueError(f"{text!r} is a name") from None


def _forms(address: Address) -> Iterator[Address]:
    """Yield the address and, if it is an IPv6 address such as `::ffff:10.0.0.1`, the IPv4 address inside. IPv4 networks
    in a list thus match both forms of an address."""
    yield address
    if isinstance(address, ipaddress.IPv4Address):
        return
    inner = address.ipv4_mapped or address.sixtofour
    if inner is not None:
        yield inner
    if any(address in network for network in _WITH_IPV4):
        yield ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
