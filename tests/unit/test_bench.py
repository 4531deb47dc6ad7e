"""The bench: what it makes of samples, which rows it leaves out, and that nothing stays behind."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from pathlib import Path

import attrs
import pytest

from reconciler.bench import fio, kerneltrace, page, plots, programs, rows, runner, traced, versus
from reconciler.bench.machine import describe
from reconciler.bench.plan import Plan
from reconciler.bench.results import (
    BenchFailed,
    Measured,
    Point,
    RowResult,
    Run,
    Series,
    from_json,
    quantile,
    renewed,
    to_json,
)
from reconciler.bench.rows import ROWS, Row
from reconciler.bench.stopwatch import cpu_of_s, until_quiet
from reconciler.bench.targets import TARGETS, Target
from reconciler.bench.yard import Yard, yard
from reconciler.kernel.sim import SimKernel
from statemachine.errors import UsageError

LIFE = Measured(
    values={"exec": 20.0, "floor": 3.0},
    series=(Series(name="byre", unit="ms", samples=(10.0, 30.0, 20.0)),),
    notes=("a note",),
)
CROWD = Measured(
    values={"few": 1.1},
    points=(
        Point(name="byre", disks=10, median_s=0.01),
        Point(name="byre", disks=100, median_s=0.011),
    ),
)


@attrs.frozen(kw_only=True)
class Tiny(Plan):
    """So little that it is done at once."""

    @property
    def simulated(self) -> int:
        return 10

    @property
    def crowd(self) -> int:
        return 10

    @property
    def writers(self) -> int:
        return 3

    @property
    def appends(self) -> int:
        return 2


TINY = Tiny(rounds=1)


def run_of(*results: RowResult) -> Run:
    machine = describe(Path("/"), where="in a test")
    return Run(machine=machine, quick=True, rounds=1, rows=results)


# --- figures -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("percent", "expected"), [(50, 3.0), (95, 5.0), (99, 5.0), (1, 1.0), (20, 1.0), (21, 2.0)]
)
def test_a_quantile_is_one_of_the_samples(percent: int, expected: object) -> None:
    assert expected == quantile([5.0, 1.0, 4.0, 2.0, 3.0], percent)


def test_the_quantile_of_one_sample_is_that_sample() -> None:
    assert [quantile([7.0], percent) for percent in (1, 50, 99)] == [7.0, 7.0, 7.0]


@pytest.mark.parametrize(
    ("value", "at_least", "expected"),
    [(2.0, True, True), (1.9, True, False), (2.0, False, True), (2.1, False, False)],
)
def test_a_bound_itself_meets_the_target(value: float, at_least: bool, expected: object) -> None:  # noqa: FBT001 - a column of the table
    target = Target(key="x", words="{} of it", bound=2, at_least=at_least)
    assert expected == target.is_met(value)


def test_a_row_is_judged_by_each_of_its_targets() -> None:
    checks = runner.judged("create", LIFE).checks
    assert [each.is_met for each in checks] == [True, False]
    assert [each.measured for each in checks] == [
        "20 times faster than exec",
        "3 times the floor",
    ]
    assert checks[1].target == "at most 2.5 times the floor"


def test_every_row_has_targets_and_a_title() -> None:
    assert TARGETS.keys() == ROWS.keys()
    assert [name for name, row in ROWS.items() if not row.title] == []


# --- which rows ----------------------------------------------------------------------------------


def test_without_names_every_row_is_meant() -> None:
    assert runner.chosen([]) == list(ROWS)


def test_rows_come_in_the_order_of_the_table() -> None:
    assert runner.chosen(["remove", "create"]) == ["create", "remove"]


def test_an_unknown_row_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match="there is no row 'creat'; allowed are create, pause"):
        runner.chosen(["creat"])


def test_a_row_that_this_host_cannot_measure_is_left_out_with_the_reason(folder: Path) -> None:
    kernel = SimKernel()
    kernel.host.dm_errno = 19
    done = runner.run(["create", "idle"], TINY, kernel, folder, where="here")
    assert ["device-mapper" in row.left_out for row in done.rows] == [True, True]
    assert [row.failed for row in done.rows] == [False, False]


def test_a_missing_program_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "find", lambda name: None if name == "dmsetup" else name)
    assert rows.why_not(ROWS["create"], SimKernel()) == "dmsetup is not installed"
    assert rows.why_not(ROWS["sim"], SimKernel()) == ""


def test_a_measurement_that_fails_is_told_and_the_others_go_on(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_yard: Yard, _plan: Plan) -> Mapping[str, Measured]:
        raise BenchFailed("losetup ended with 1")

    monkeypatch.setitem(ROWS, "get", Row(title="fails", measure=fail, needs_devices=False))
    done = runner.run(["appends", "get"], TINY, SimKernel(), folder, where="here")
    assert [(row.failed, row.left_out) for row in done.rows] == [
        (False, ""),
        (True, "it failed: losetup ended with 1"),
    ]


def test_a_package_that_is_missing_leaves_its_row_out(monkeypatch: pytest.MonkeyPatch) -> None:
    assert rows.why_not(ROWS["versus"], SimKernel()) == ""
    monkeypatch.setattr(versus, "PACKAGE", "none_such")
    assert "none_such is not installed" in rows.why_not(ROWS["versus"], SimKernel())


def test_what_needs_no_device_is_measured_on_any_host_and_leaves_nothing(folder: Path) -> None:
    chosen = ["appends", "sim", "versus", "get"]
    done = runner.run(chosen, TINY, SimKernel(), folder, where="here")
    assert [row.left_out for row in done.rows] == ["", "", "", ""]
    assert all(series.median > 0 for row in done.rows for series in row.series)
    assert list(folder.iterdir()) == []


# --- nothing stays behind ------------------------------------------------------------------------


def test_a_yard_that_is_left_by_an_error_ends_its_programs_and_takes_its_folder_along(
    folder: Path,
) -> None:
    class Interrupted(BaseException):
        pass

    made = []

    def begin_and_be_interrupted() -> None:
        with yard(SimKernel(), folder) as place:
            made.append(place.start(*programs.python("-c", "import time; time.sleep(600)")))
            assert made[0].is_alive
            assert place.folder.exists()
            raise Interrupted

    with pytest.raises(Interrupted):
        begin_and_be_interrupted()
    assert not made[0].is_alive
    assert list(folder.iterdir()) == []


def test_a_program_that_fails_is_named_with_what_it_said() -> None:
    with pytest.raises(BenchFailed, match="ended with 3: no such thing"):
        programs.run(*programs.python("-c", "import sys; print('no such thing', file=sys.stderr); sys.exit(3)"))  # fmt: skip  # noqa: E501


def test_a_missing_program_is_named() -> None:
    with pytest.raises(BenchFailed, match="no-such-program is missing"):
        programs.run("no-such-program")


def test_the_cpu_time_of_another_process_is_read(folder: Path) -> None:
    with yard(SimKernel(), folder) as place:
        process = place.start(*programs.python("-c", "while True: pass"))
        while cpu_of_s(process.pid) < 0.01:
            assert process.is_alive


# --- JSON, page, pictures ------------------------------------------------------------------------


def test_json_is_read_back_as_it_was() -> None:
    run = run_of(runner.judged("create", LIFE), runner.judged("scale", CROWD))
    text = json.dumps(to_json([run]))
    assert from_json(text, source="x.json") == [run]
    series = json.loads(text)["runs"][0]["rows"][0]["series"][0]
    assert (series["median"], series["p95"], series["p99"]) == (20.0, 30.0, 30.0)


def test_rows_measured_anew_at_a_place_replace_the_old_ones_and_no_others() -> None:
    create, scale = runner.judged("create", LIFE), runner.judged("scale", CROWD)
    old = run_of(create, scale)
    elsewhere = attrs.evolve(old, machine=attrs.evolve(old.machine, where="elsewhere"))
    again = attrs.evolve(old, rounds=old.rounds + 1, rows=(create,))
    failed = RowResult(name="scale", title="scale", left_out="it failed", failed=True)
    new = attrs.evolve(again, rows=(create, failed))
    assert renewed([old, elsewhere], [new]) == [run_of(scale), elsewhere, again]
    assert renewed([run_of(create)], [again]) == [again]


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"format": 2, "runs": []}', '{"format": 1}'])
def test_what_is_no_output_of_the_bench_is_refused_by_name(text: str) -> None:
    with pytest.raises(UsageError, match=r"x\.json"):
        from_json(text, source="x.json")


def test_the_page_has_targets_figures_notes_and_what_was_left_out() -> None:
    left_out = RowResult(name="get", title="get", left_out="no Python")
    text = page.markdown([run_of(runner.judged("create", LIFE), left_out)])
    assert "### Measured in a test\n" in text
    assert "| 20 times faster than exec | at least 15 times faster than exec | yes |" in text
    assert "| 3 times the floor | at most 2.5 times the floor | **no** |" in text
    assert "| `create` | byre | 20 | 30 | 30 | 3 | ms |" in text
    assert "- `create`: a note" in text
    assert "- `get` was left out: no Python" in text


def test_the_table_names_a_row_once_and_says_what_was_left_out() -> None:
    left_out = RowResult(name="get", title="get", left_out="no Python")
    run = run_of(runner.judged("create", LIFE), left_out)
    assert list(page.lines(run)) == [("create", "byre", "20", "30", "30", "3", "ms")]
    assert list(page.checks(run))[-1] == ("get", "left out: no Python", "", "-")


def test_pictures_are_drawn_or_it_is_said_why_not(tmp_path: Path) -> None:
    run = run_of(runner.judged("create", LIFE), runner.judged("scale", CROWD))
    reason = plots.missing()
    drawn = [] if reason else plots.draw(run, tmp_path / "pictures")
    names = sorted(path.name for path in drawn if path.stat().st_size)
    expected = [] if reason else ["cost.png", "cost.svg", "latency.png", "latency.svg"]
    assert ("matplotlib" in reason, names) == (bool(reason), expected)


# --- strace --------------------------------------------------------------------------------------


def test_the_table_of_strace_is_read() -> None:
    text = (
        "    calls syscall\n--------- ----------------\n       12 ioctl\n        3 openat\n"
        "--------- ----------------\n       15 total\n"
    )
    assert traced.parse(text) == {"ioctl": 12, "openat": 3}


@pytest.mark.parametrize("text", ["", "strace: attach: Operation not permitted\n", "0 total\n"])
def test_another_table_than_that_of_strace_is_refused(text: str) -> None:
    with pytest.raises(BenchFailed, match="printed no table"):
        traced.parse(text)


# --- being at rest -------------------------------------------------------------------------------


def test_what_was_done_before_the_rest_is_what_counts() -> None:
    used = iter([0.0, 0.3, 0.6, *[1.0] * 10_000])
    done = until_quiet(lambda: next(used), quiet_s=0.05)
    assert done.cpu_s == 1.0
    assert done.wall_s > 0


def test_who_never_rests_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reconciler.bench.stopwatch.LIMIT_S", 0.1)
    used = itertools.count()
    with pytest.raises(BenchFailed, match="did not come to rest within"):
        until_quiet(lambda: float(next(used)), quiet_s=0.05)


# --- fio, and the kernel's trace -----------------------------------------------------------------


def test_the_rate_of_a_job_is_read_from_what_fio_printed() -> None:
    printed = json.dumps(
        {"jobs": [{"read": {"iops": 0, "bw_bytes": 0}, "write": {"iops": 80.5, "bw_bytes": 4e6}}]}
    )
    job = fio.Job(title="a job", rw="randwrite", block_bytes=4096, is_random=True)
    in_order = attrs.evolve(job, rw="write", is_random=False)
    assert fio.rate(job, printed) == 80.5
    assert fio.rate(in_order, f"fio: a word\n{printed}") == 4.0
    assert (job.unit, in_order.unit) == ("IOPS", "MB/s")


@pytest.mark.parametrize("printed", ["", "fio: no such device", "{}", '{"jobs": []}', "[1]"])
def test_what_fio_never_prints_is_refused(printed: str) -> None:
    job = fio.Job(title="a job", rw="read", block_bytes=4096, is_random=False)
    with pytest.raises(BenchFailed, match="cannot be read"):
        fio.rate(job, printed)


def test_a_trace_of_the_kernel_is_read() -> None:
    found = kerneltrace.parse(
        """# tracer: nop
           sh-412   [000] .....  7.1: sched_process_exec: filename=/usr/sbin/dmsetup pid=412 old=412
 (udev-worker)-93   [001] .....  7.2: block_bio_queue: 7,3 RA 0 + 8 [(udev-worker)]
          fio-420   [000] .....  7.3: block_bio_queue: 253,0 WS 8192 + 256 [fio]
  kworker/u4:1-9    [001] .....  7.4: sched_wakeup: comm=fio pid=420"""
    )
    assert found.programs == ("/usr/sbin/dmsetup",)
    assert [(bio.device, bio.is_read, bio.sectors, bio.task) for bio in found.bios] == [
        ((7, 3), True, 8, "(udev-worker)"),
        ((253, 0), False, 256, "fio"),
    ]


def test_where_the_kernel_cannot_be_traced_it_is_said_what_to_do(tmp_path: Path) -> None:
    with (
        pytest.raises(BenchFailed, match="cannot trace") as raised,
        kerneltrace.tracing(tmp_path / "none"),
    ):
        pass
    assert "mount -t tracefs" in raised.value.hint
