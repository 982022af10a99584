"""The combined metrics of several workers, served by `run --processes`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from prometheus_client import generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from noetl_worker.observability import metrics  # noqa: F401 - declares the gauges
from noetl_worker.observability.series import COMBINED_GAUGES

_COUNTED: Final = frozenset({"counter", "histogram"})


@dataclass(frozen=True)
class _Families(Collector):
    """A collector of combined metrics, so that `generate_latest` can format them as text."""

    families: Iterable[Metric]

    def collect(self) -> Iterable[Metric]:
        return self.families


def combine_metrics(texts: Iterable[str], past: Iterable[str] = ()) -> str:
    """Combine the metrics of several processes into one text for /metrics.

    Args:
        texts: text of /metrics of each running process.
        past: last /metrics text of each process that has ended. Counters and histograms in these texts are added;
            gauges are left out.
    """
    whole: dict[str, Metric] = {}
    found: dict[str, dict[tuple[str, tuple[tuple[str, str], ...]], list[float]]] = {}
    for text, is_past in (*((text, False) for text in texts), *((text, True) for text in past)):
        for family in text_string_to_metric_families(text):
            if is_past and family.type not in _COUNTED:
                continue
            whole.setdefault(family.name, Metric(family.name, family.documentation, family.type))
            rows = found.setdefault(family.name, {})
            for sample in family.samples:
                rows.setdefault((sample.name, tuple(sample.labels.items())), []).append(sample.value)
    for name, metric in whole.items():
        together = COMBINED_GAUGES.get(name, sum)
        for (sample_name, labels), values in found[name].items():
            metric.add_sample(sample_name, dict(labels), together(values))
    return generate_latest(_Families(whole.values())).decode()
