"""What the optimizer itself costs stays small beside any LM call."""

from benchmarks.overhead import measure


def test_a_metric_call_costs_less_than_two_milliseconds_of_ours_on_eight_threads(tmp_path):
    row = measure(num_candidates=80, num_examples=16, threads=8, log_dir=tmp_path)
    assert row["candidates"] == 80
    assert row["metric_calls"] > 80 * 4
    assert row["cpu_ms_a_call"] < 2


def test_the_cost_of_a_call_hardly_grows_with_the_examples():
    few, many = (measure(num_candidates=8, num_examples=n, threads=2, log_dir=None) for n in (16, 128))
    assert many["metric_calls"] > 2 * few["metric_calls"]
    assert many["cpu_ms_a_call"] < 2
