"""The instruments of hellobench: what they plan, compute, keep and draw."""

import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.hellobench import chart, plan, report
from benchmarks.hellobench.report import Results
from benchmarks.hellobench.sample import Sample
from lab.workloads import WORKLOADS

ABOUT = {"date": "2026-01-02", "machine": "a <fast> one", "store": "ours"}


def sample(mode: str, seconds: float, *, image: str = "redis", number: int = 0) -> Sample:
    return Sample(
        image=image, mode=mode, link="100m", number=number, pull_seconds=seconds / 2, create_seconds=seconds / 4,
        run_seconds=seconds / 4, bytes=1000, requests=3, store_cpu_seconds=0.5, store_peak_bytes=50_000_000,
        link_cpu_seconds=0.1,
    )  # fmt: skip


def test_every_combination_is_taken_equally_often_in_an_order_that_the_seed_decides() -> None:
    asked = (["redis", "gcc"], ["gzip", "zstd", "estargz"], ["100m", "1g"])
    steps = list(plan.steps(*asked, samples=3, seed=7))
    assert len(steps) == len(set(steps)) == 2 * 3 * 2 * 3
    assert steps == list(plan.steps(*asked, samples=3, seed=7))
    assert steps != list(plan.steps(*asked, samples=3, seed=8))
    assert {step.number for step in steps[:12]} == {0}


def test_every_mode_has_an_image_for_every_workload() -> None:
    for mode in plan.MODES.values():
        for workload in WORKLOADS.values():
            assert mode.part(workload)
            assert ":" in mode.tag(workload)


def test_shares_are_of_the_full_pull_of_the_same_image_and_link() -> None:
    table = report.tabulate(
        [
            *(sample("gzip", seconds, number=number) for number, seconds in enumerate((9.0, 10.0, 50.0))),
            sample("zstd", 1.0),
            sample("gzip", 10.0, image="gcc"),
            sample("zstd", 4.0, image="gcc"),
            sample("zstd", 1.0, image="nginx"),
        ]
    )
    assert report.share_of_full(table, "100m", "redis", "zstd") == pytest.approx(0.1)
    assert report.share_of_full(table, "100m", "nginx", "zstd") is None
    assert report.mean_share(table, "100m", "zstd") == pytest.approx(0.2)
    assert report.mean_share(table, "100m", "estargz") is None


def test_results_come_back_from_their_file(tmp_path: Path) -> None:
    results = Results(ABOUT, {("redis", "zstd"): 500}, [sample("gzip", 2.0), sample("zstd", 1.0)])
    report.save(tmp_path / "results.json", results)
    assert report.load(tmp_path / "results.json") == results


def test_the_text_tells_shares_and_what_of_the_bytes_was_needed() -> None:
    text = report.text(Results(ABOUT, {("redis", "zstd"): 500}, [sample("gzip", 2.0), sample("zstd", 1.0)]))
    assert "1.00 (0.500)" in text
    assert "2.00 of 0.0 MB" in text


def test_the_chart_is_well_formed_and_its_bars_are_as_high_as_the_seconds() -> None:
    results = Results(ABOUT, {}, [sample("gzip", 8.0), sample("zstd", 2.0)])
    drawn = ElementTree.fromstring(chart.draw(results))
    bars = [element for element in drawn.iter("{http://www.w3.org/2000/svg}rect") if element.get("fill-opacity")]
    legend, full, lazy = bars[:2], bars[2:5], bars[5:]
    assert [bar.get("fill") for bar in legend] == [full[0].get("fill"), lazy[0].get("fill")]
    heights = [sum(float(bar.get("height", "")) for bar in stack) for stack in (full, lazy)]
    assert heights[0] == pytest.approx(4 * heights[1], abs=0.5)
    words = [element.text for element in drawn.iter("{http://www.w3.org/2000/svg}text")]
    assert "redis" in words
    assert any(word and "a <fast> one" in word for word in words)


def test_a_chart_of_uneven_numbers_of_samples_says_so() -> None:
    results = Results(ABOUT, {}, [sample("gzip", 8.0), replace(sample("gzip", 8.0), number=1), sample("zstd", 2.0)])
    assert "medians of 1 to 2" in chart.draw(results)
