"""The metrics of several workers as those of one: what `run --processes` serves."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from prometheus_client.parser import text_string_to_metric_families

_HIGHEST: Final = frozenset(
    {
        "noetl_worker_auth_refused",
        "noetl_worker_build_info",
        "noetl_worker_credential_ends_timestamp_seconds",
        "noetl_worker_dead_letters_kept",
        "noetl_worker_dead_letters_oldest_seconds",
        "noetl_worker_gate_down",
        "noetl_worker_loop_lag_seconds",
        "noetl_worker_nats_consumer_ack_pending",
        "noetl_worker_nats_consumer_ack_pending_full",
        "noetl_worker_nats_consumer_max_ack_pending",
        "noetl_worker_nats_consumer_pause_seconds",
        "noetl_worker_nats_consumer_pending",
        "noetl_worker_outbox_oldest_seconds",
        "process_start_time_seconds",
        "noetl_worker_plane_down",
    }
)
"""Of the pool or the machine, or the worst of its kind: the same number from each, never to be added."""
_LOWEST: Final = frozenset({"noetl_worker_nats_connected", "noetl_worker_ready", "process_max_fds"})


_COUNTED: Final = frozenset({"counter", "histogram"})


def summed(texts: Iterable[str], past: Iterable[str] = ()) -> str:
    """One exposition out of several; what was counted in `past` is in it too, and no gauge of then."""
    heads: dict[str, tuple[str, str]] = {}
    found: dict[str, dict[tuple[str, tuple[tuple[str, str], ...]], list[float]]] = {}
    for text, is_past in (*((text, False) for text in texts), *((text, True) for text in past)):
        for family in text_string_to_metric_families(text):
            if is_past and family.type not in _COUNTED:
                continue
            heads.setdefault(family.name, (family.type, family.documentation))
            rows = found.setdefault(family.name, {})
            for sample in family.samples:
                rows.setdefault((sample.name, tuple(sample.labels.items())), []).append(sample.value)
    lines: list[str] = []
    for name, (kind, documentation) in heads.items():
        shown = f"{name}_total" if kind == "counter" else name
        lines += [f"# HELP {shown} {_escaped(documentation)}", f"# TYPE {shown} {kind}"]
        together = _way(name)
        lines += [f"{sample}{_labels(labels)} {together(values)!r}" for (sample, labels), values in found[name].items()]
    return "\n".join(lines) + "\n"


def _way(name: str) -> Callable[[Sequence[float]], float]:
    return max if name in _HIGHEST else min if name in _LOWEST else sum


def _labels(labels: tuple[tuple[str, str], ...]) -> str:
    inner = ",".join(f'{name}="{_quoted(value)}"' for name, value in labels)
    return f"{{{inner}}}" if inner else ""


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n")


def _quoted(text: str) -> str:
    return _escaped(text).replace('"', '\\"')
