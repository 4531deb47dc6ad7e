"""Loop devices on the running kernel: bound by identity, found, shared out, and given back."""

import errno
import os
import resource
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import attrs
import pytest

from reconciler.kernel import ioctl, loopinfo
from reconciler.kernel.linux import LinuxKernel
from reconciler.kernel.loopdev import LoopDevices
from reconciler.kernel.loopinfo import LoopInfo
from statemachine.errors import IdentityMismatch, PermanentError, TransientError
from statemachine.fileidentity import FileIdentity
from statemachine.observed import Loop
from statemachine.units import Bytes

kernel = LinuxKernel()
SIZE = Bytes(1 << 20)
needs_loops = [
    pytest.mark.root,
    pytest.mark.skipif(
        bool(kernel.capabilities().loop), reason=f"loops: {kernel.capabilities().loop}"
    ),
]


class Bench:
    """Files and loops of one test, all of them given back at its end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.loops: list[Loop] = []

    def file(self, name: str) -> tuple[Path, FileIdentity]:
        path = self.folder / name
        return path, kernel.create_sparse(path, SIZE)

    def attach(self, name: str = "cow", *, read_only: bool = False) -> Loop:
        path, made = self.file(name)
        loop = kernel.loop_attach(path, made, marker=f"BYRE-test-{name}", read_only=read_only)
        self.loops.append(loop)
        return loop

    def close(self) -> None:
        for loop in self.loops:
            now = kernel.loop(loop.number)
            if now is not None and now.marker == loop.marker:
                detach(now)


def detach(loop: Loop) -> bool:
    """Detach, as byre does: again while udev, on a slow host, still looks into the device."""
    for _ in range(50):
        try:
            return kernel.loop_detach(loop)
        except TransientError:
            time.sleep(0.1)
    return kernel.loop_detach(loop)


def _file_of(loop: Loop) -> FileIdentity:
    return FileIdentity(device=loop.backing_device, inode=loop.backing_inode, size=SIZE, mtime_ns=0)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.close()


class TestWithLoops:
    pytestmark = needs_loops

    def test_a_loop_says_what_it_is_on(self, bench: Bench) -> None:
        loop = bench.attach()
        made = kernel.identify(bench.folder / "cow")
        assert made is not None
        assert loop.backs(made)
        assert (loop.marker, loop.size.to_bytes()) == ("BYRE-test-cow", SIZE)
        assert (loop.read_only, loop.autoclear) == (False, False)
        assert kernel.loop(loop.number) == loop
        assert loop in kernel.loops()

    def test_a_read_only_loop_is_read_only_to_the_kernel(self, bench: Bench) -> None:
        loop = bench.attach(read_only=True)
        assert loop.read_only
        assert Path(f"/sys/block/loop{loop.number}/ro").read_text() == "1\n"

    def test_a_loop_is_known_by_its_inode_when_its_path_is_gone(self, bench: Bench) -> None:
        loop = bench.attach()
        (bench.folder / "cow").rename(bench.folder / "renamed")
        moved = kernel.identify(bench.folder / "renamed")
        found = kernel.loop(loop.number)
        assert found is not None
        assert moved is not None
        assert found.backs(moved)
        (bench.folder / "renamed").unlink()
        found = kernel.loop(loop.number)
        assert found is not None
        assert found.backs(moved)

    def test_a_loop_that_need_not_be_named_is_still_the_one_of_now(self, bench: Bench) -> None:
        loop = bench.attach()
        (bench.folder / "cow").rename(bench.folder / "renamed")
        assert kernel.loop(loop.number, named=False) == loop
        assert kernel.loop(loop.number) == attrs.evolve(
            loop, backing_path=str(bench.folder / "renamed")
        )
        kernel.grow_file(bench.folder / "renamed", _file_of(loop), Bytes(2 * SIZE.count))
        assert kernel.loop_grow(loop)
        grown = kernel.loop(loop.number, named=False)
        assert grown is not None
        assert grown.size.to_bytes() == Bytes(2 * SIZE.count)
        assert detach(loop)
        assert kernel.loop(loop.number, named=False) is None

    def test_another_file_in_place_is_not_attached(self, bench: Bench) -> None:
        path, made = bench.file("cow")
        with pytest.raises(IdentityMismatch):
            kernel.loop_attach(
                path, attrs.evolve(made, inode=made.inode + 1), marker="x", read_only=False
            )

    def test_our_own_file_is_not_attached_through_a_symlink_but_a_base_is(
        self, bench: Bench
    ) -> None:
        path, made = bench.file("file")
        link = bench.folder / "link"
        link.symlink_to(path)
        with pytest.raises(PermanentError) as caught:
            kernel.loop_attach(link, made, marker="x", read_only=False)
        assert caught.value.errno == errno.ELOOP
        base = kernel.loop_attach(link, made, marker="x", read_only=True)
        assert detach(base)

    def test_a_loop_is_detached_once(self, bench: Bench) -> None:
        loop = bench.attach()
        assert detach(loop) is True
        assert detach(loop) is False
        assert kernel.loop(loop.number) is None

    def test_a_loop_in_use_is_left_as_it_was(self, bench: Bench) -> None:
        loop = bench.attach()
        descriptor = os.open(loop.path, os.O_RDONLY)
        try:
            with pytest.raises(TransientError) as caught:
                kernel.loop_detach(loop)
            assert caught.value.kind == "ebusy"
            assert kernel.loop(loop.number) == loop
            assert [holder.pid for holder in kernel.holders(loop.device)] == [os.getpid()]
        finally:
            os.close(descriptor)
        assert detach(loop) is True

    def test_autoclear_is_set_once_and_the_last_opener_takes_the_loop_along(
        self, bench: Bench
    ) -> None:
        loop = bench.attach()
        descriptor = os.open(loop.path, os.O_RDONLY)
        assert kernel.loop_set_autoclear(loop) is True
        assert kernel.loop_set_autoclear(loop) is False
        assert kernel.loop(loop.number) == attrs.evolve(loop, autoclear=True)
        os.close(descriptor)
        assert kernel.loop(loop.number) is None
        assert kernel.loop_set_autoclear(loop) is False

    def test_a_loop_in_use_that_had_autoclear_keeps_it(self, bench: Bench) -> None:
        loop = bench.attach()
        descriptor = os.open(loop.path, os.O_RDONLY)
        kernel.loop_set_autoclear(loop)
        with pytest.raises(TransientError):
            kernel.loop_detach(loop)
        assert kernel.loop(loop.number) == attrs.evolve(loop, autoclear=True)
        os.close(descriptor)

    def test_a_number_that_went_to_another_file_is_not_touched(self, bench: Bench) -> None:
        loop = bench.attach()
        stale = attrs.evolve(loop, backing_inode=loop.backing_inode + 1)
        with pytest.raises(IdentityMismatch, match="now, not on"):
            kernel.loop_detach(stale)
        with pytest.raises(IdentityMismatch):
            kernel.loop_set_autoclear(stale)
        assert kernel.loop(loop.number) == loop

    def test_many_threads_each_get_a_loop_of_their_own(self, bench: Bench) -> None:
        with ThreadPoolExecutor(32) as pool:
            loops = list(pool.map(bench.attach, (f"cow-{i}" for i in range(32))))
            assert len({loop.number for loop in loops}) == 32
            looks = [pool.submit(kernel.loops) for _ in range(8)]
            assert all(pool.map(detach, loops))
            assert all(look.result() is not None for look in looks)

    @pytest.mark.parametrize("read_only", [True, False])
    def test_the_way_of_kernels_before_5_8_gives_the_same_loop(
        self, bench: Bench, *, read_only: bool
    ) -> None:
        older = LoopDevices(dev=Path("/dev"), sys=Path("/sys"), configure=False)
        path, made = bench.file("cow")
        with ioctl.opened(path, os.O_RDONLY if read_only else os.O_RDWR) as file:
            loop = older.attach(file, marker="BYRE-test-old", read_only=read_only)
        bench.loops.append(loop)
        assert loop.backs(made)
        assert (loop.marker, loop.read_only) == ("BYRE-test-old", read_only)
        assert detach(loop) is True

    def test_a_file_that_cannot_back_a_loop_leaks_none(self, bench: Bench) -> None:
        before = kernel.loops()
        with (
            ioctl.opened(Path("/dev/null"), os.O_RDWR) as file,
            pytest.raises(OSError, match="Invalid argument"),
        ):
            LoopDevices(dev=Path("/dev"), sys=Path("/sys")).attach(
                file, marker="x", read_only=False
            )
        del bench
        assert kernel.loops() == before


def test_dirty_pages_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([errno.EAGAIN, errno.EAGAIN, 0])
    fsynced: list[int] = []

    def busy_twice(_descriptor: int, _info: LoopInfo) -> None:
        if number := next(answers):
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr(loopinfo, "set_status", busy_twice)
    monkeypatch.setattr(os, "fsync", fsynced.append)
    loopinfo._set_status_patiently(7, LoopInfo())  # noqa: SLF001 - no kernel at hand does this
    assert fsynced == [7, 7]


def test_dirty_pages_that_stay_dirty_end_the_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    def always(_descriptor: int, _info: LoopInfo) -> None:
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(loopinfo, "set_status", always)
    monkeypatch.setattr(os, "fsync", lambda _descriptor: None)
    with pytest.raises(BlockingIOError):
        loopinfo._set_status_patiently(7, LoopInfo())  # noqa: SLF001 - no kernel at hand does this


def test_where_there_are_no_loops_nothing_is_found(tmp_path: Path) -> None:
    bare = LinuxKernel(dev=tmp_path, sys=tmp_path, proc=tmp_path)
    assert bare.loops() == ()
    assert bare.loop(0) is None
    assert "no loop devices" in bare.capabilities().loop
    assert "no device-mapper" in bare.capabilities().dm
    assert bare.dm_names() == ()
    assert bare.dm("byre-x") is None


def test_a_process_out_of_descriptors_does_not_take_things_for_lost(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        for question in (lambda: kernel.loop(0), lambda: kernel.readable(path)):
            with pytest.raises(TransientError) as caught:
                question()
            assert caught.value.kind == "emfile"
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
