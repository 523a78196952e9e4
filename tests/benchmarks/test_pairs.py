"""The arithmetic of interleaved timing, on made-up clocks."""

import pytest
from benchmarks.pairs import Lap, Rounds, Spread, as_json, clocked, interleave, table, turns, verdict


def rounds_of(*pairs):
    rounds = Rounds()
    for ours, theirs in pairs:
        rounds.add({"ours": Lap(ours, ours / 2), "theirs": Lap(theirs, theirs)})
    return rounds


def test_a_ratio_is_taken_inside_a_round():
    # The machine slows down tenfold in the middle; the ratio of the medians would be 10, 1 or 0.1 by luck.
    rounds = rounds_of((1.0, 2.0), (10.0, 20.0), (3.0, 6.0))
    assert rounds.ratio("ours", "theirs") == Spread(0.5, 0.5, 0.5, 0.5, 0.5, 3)
    assert rounds.ratio("ours", "theirs", "cpu").median == 0.25
    assert rounds.time_of("ours").median == 3.0


def test_spread_is_median_quartiles_and_extremes():
    assert Spread.of([5.0, 1.0, 2.0, 4.0, 3.0]) == Spread(3.0, 2.0, 4.0, 1.0, 5.0, 5)
    assert Spread.of([2.0]) == Spread(2.0, 2.0, 2.0, 2.0, 2.0, 1)
    assert Spread.of([1.0, 3.0]).scaled(1e3).median == 2000.0
    with pytest.raises(ValueError, match="no round was measured"):
        Spread.of([])


def test_every_second_round_goes_backwards():
    assert turns("abc", 0) == ["a", "b", "c"]
    assert turns("abc", 1) == ["c", "b", "a"]


def test_interleaving_runs_blocks_in_turn_and_forgets_the_warm_up():
    calls = []
    contenders = {name: lambda name=name: calls.append(name) for name in "ab"}
    rounds = interleave(contenders, rounds=2, warmup=1, synchronise=lambda: calls.append("|"), block=2)
    assert "".join(calls) == "bb|aa|" + "aa|bb|" + "bb|aa|"
    assert len(rounds.laps) == 2
    assert rounds.names() == ["a", "b"]


def test_a_lap_includes_what_the_device_still_does(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    monkeypatch.setattr("time.process_time", lambda: now[0] / 2)

    def wait(seconds):
        now[0] += seconds

    assert clocked(lambda: wait(1.0), lambda: wait(4.0), times=2) == Lap(3.0, 1.5)


def test_table_has_times_ratios_and_processor_time():
    lines = list(table(rounds_of((1.0, 2.0), (3.0, 4.0)), [("ours", "theirs")], cpu=True))
    assert len({line.count("|") for line in lines}) == 1
    assert [line.split("|")[1].strip() for line in lines[2:]] == [
        "ours, ms",
        "theirs, ms",
        "ours / theirs",
        "ours / theirs, CPU time",
    ]
    assert "| 2000 | 1500 to 2500 | 1000 to 3000 | 2 |" in lines[2]
    assert "0.625 | 0.562 to 0.688 | 0.500 to 0.750" in lines[4]


def test_json_has_the_same_figures():
    content = as_json(rounds_of((1.0, 2.0)), [("ours", "theirs")], cpu=True)
    assert content["seconds"]["theirs"]["median"] == 2.0
    assert content["ratios"]["ours / theirs"]["median"] == 0.5
    assert content["cpu_ratios"]["ours / theirs"]["median"] == 0.25
    assert "cpu_ratios" not in as_json(rounds_of((1.0, 2.0)), [], cpu=False)


def test_a_verdict_names_the_bar():
    assert verdict("tax", 1.05, 1.05) == "tax: 1.050, bar 1.05: held"
    assert verdict("tax", 1.051, 1.05).endswith("NOT HELD")
