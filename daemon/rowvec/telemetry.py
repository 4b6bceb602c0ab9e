"""Metrics, in Prometheus' form."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Metrics:
    """One daemon's counters, in a registry of their own: several daemons may live in one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.wakeups = Counter(
            "rowvec_wakeups",
            "Looks at the queue by what caused them (notify, poll, sweep), and whether there was anything.",
            ["cause", "worked"],
            registry=self.registry,
        )
        self.changes_folded = Counter("rowvec_changes_folded", "Changes that became items.", registry=self.registry)
        self.items = Counter(
            "rowvec_items",
            "Items by what became of them (current, superseded, refused, released, retried, failed).",
            ["model", "lane", "outcome"],
            registry=self.registry,
        )
        self.texts_sent = Counter(
            "rowvec_texts_sent", "Chunks that a model has embedded.", ["model"], registry=self.registry
        )
        self.vectors_reused = Counter(
            "rowvec_vectors_reused",
            "Chunks whose vector was held already.",
            ["model"],
            registry=self.registry,
        )
        self.tokens_sent = Counter(
            "rowvec_tokens_sent",
            "Tokens sent to a model, as estimated from the characters.",
            ["model"],
            registry=self.registry,
        )
        self.requests = Counter(
            "rowvec_requests",
            "Requests to a model by outcome (answered, rejected, failed, unavailable, cancelled).",
            ["model", "outcome"],
            registry=self.registry,
        )
        self.rate_limit_waits = Counter(
            "rowvec_rate_limit_waits",
            "Requests that had to wait because of the model's requests a minute.",
            ["model"],
            registry=self.registry,
        )
        self.breaker_state = Gauge(
            "rowvec_breaker_state",
            "1 for the state that a model's circuit breaker is in (closed, open, half-open).",
            ["model", "state"],
            registry=self.registry,
        )
        self.messages = Counter(
            "rowvec_messages",
            "Messages by what became of them: sent, dropped (no message may be sent, the work is done here) or the "
            "kind of the refusal (configuration, quota, passing, permanent).",
            ["outcome"],
            registry=self.registry,
        )
        self.dispatched_items = Counter(
            "rowvec_dispatched_items", "Items that were handed to messages.", registry=self.registry
        )
        self.overdue_items = Counter(
            "rowvec_overdue_items",
            "Items that their message had not brought by its deadline: they were done without it.",
            registry=self.registry,
        )
        self.carrier_state = Gauge(
            "rowvec_carrier_state",
            "1 for the state that the circuit to the carrier is in (closed, open, half-open).",
            ["state"],
            registry=self.registry,
        )
        self.deliveries = Counter(
            "rowvec_deliveries",
            "Requests of QStash by the status that they were answered with.",
            ["status"],
            registry=self.registry,
        )
        self.request_seconds = Histogram(
            "rowvec_request_seconds",
            "Time of a request to a model.",
            ["model"],
            buckets=SECONDS_BUCKETS,
            registry=self.registry,
        )

    def render(self) -> bytes:
        """Return all metrics as Prometheus text."""
        return generate_latest(self.registry)
