"""The exposition, read by Prometheus' own parser."""

from types import SimpleNamespace

import grpc
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from serving.metrics import Metrics

CODES = grpc.StatusCode


def samples(metrics):
    """Name and sorted labels -> value. The parser puts `_total` behind a counter's name, as is the custom."""
    families = text_string_to_metric_families(metrics.text().decode())
    return {
        (sample.name.removesuffix("_total"), *sorted(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }


def request(name):
    return SimpleNamespace(model_spec=SimpleNamespace(name=name))


@pytest.fixture
def metrics():
    return Metrics(lambda: ["a", 'odd "name"\\\n'])


def test_calls_are_counted_by_model_and_status(metrics):
    observe = metrics.observer("GRPC")
    for code in (CODES.OK, CODES.OK, CODES.INVALID_ARGUMENT):
        observe("Predict", request("a"), code, 0.001)
    found = samples(metrics)
    name = ":tensorflow:serving:request_count"
    assert found[name, ("model_name", "a"), ("status", "OK")] == 2
    assert found[name, ("model_name", "a"), ("status", "INVALID_ARGUMENT")] == 1


def test_latency_is_of_successes_alone(metrics):
    metrics.observer("GRPC")("Predict", request("a"), CODES.OK, 0.001)
    metrics.observer("GRPC")("Predict", request("a"), CODES.INTERNAL, 5)
    metrics.observer("REST")("Predict", request("a"), CODES.OK, 0.002)
    found = samples(metrics)
    name = ":tensorflow:serving:request_latency"
    for api, entrypoint, microseconds in (("Predict", "GRPC", 1000), ("predict", "REST", 2000)):
        labels = [("API", api), ("entrypoint", entrypoint), ("model_name", "a")]
        assert found[(name + "_sum", *labels)] == pytest.approx(microseconds)
        assert found[(name + "_count", *labels)] == 1


def test_buckets_are_the_stock_servers_and_cumulative(metrics):
    values = np.random.default_rng(1).lognormal(8, 3, 500)
    for value in values:
        metrics.warmup_latency.observe(float(value), "/model/1", "OK")
    name = ":tensorflow:serving:model_warmup_latency_bucket"
    buckets = {float(dict(key[1:])["le"]): value for key, value in samples(metrics).items() if key[0] == name}
    limits = [10 * 1.8**power for power in range(33)]
    np.testing.assert_allclose(list(buckets), [*limits, np.inf])
    np.testing.assert_array_equal(
        list(buckets.values()), [*(np.sum(values <= limit) for limit in limits), 500]
    )


def test_what_callers_make_up_is_no_label(metrics):
    for number in range(100):
        metrics.observer("GRPC")("Predict", request(f"made up {number}"), CODES.NOT_FOUND, 0.1)
    metrics.observer("GRPC")("Predict", None, CODES.INVALID_ARGUMENT, 0.1)
    found = samples(metrics)
    assert found[":tensorflow:serving:request_count", ("model_name", ""), ("status", "NOT_FOUND")] == 100
    assert len([key for key in found if key[0] == ":tensorflow:serving:request_count"]) == 2


def test_labels_are_escaped(metrics):
    metrics.observer("GRPC")("Predict", request('odd "name"\\\n'), CODES.OK, 0.1)
    key = (":tensorflow:serving:request_count", ("model_name", 'odd "name"\\\n'), ("status", "OK"))
    assert samples(metrics)[key] == 1


def test_the_form_is_the_stock_servers(metrics):
    metrics.observer("GRPC")("Predict", request("a"), CODES.OK, 0.1)
    text = metrics.text().decode()
    assert "# TYPE :tensorflow:serving:request_count counter\n" in text
    assert ':tensorflow:serving:request_count{model_name="a",status="OK"} 1\n' in text
    assert "# HELP" not in text


def test_several_tasks_have_one_model(metrics):
    several = SimpleNamespace(tasks=[request("a"), request("b")])
    metrics.observer("GRPC")("MultiInference", several, CODES.OK, 0.1)
    assert samples(metrics)[":tensorflow:serving:request_count", ("model_name", "a"), ("status", "OK")] == 1
