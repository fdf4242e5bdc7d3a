from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from rga_timm.data.text_file import whole_file, write_text

pytestmark = pytest.mark.faults


def fail_in(file: Path, error: BaseException) -> None:
    with whole_file(file) as temporary:
        temporary.write_text("new, but not all of i")
        raise error


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "no space"),
        RuntimeError("torch: unexpected pos 704 vs 598 [Errno 28] No space left on device"),
        ValueError("safetensors: I/O error: No space left on device (os error 28)"),
    ],
    ids=["python", "torch", "safetensors"],
)
def test_a_failed_write_leaves_the_old_file_alone_and_names_it(
    error: Exception, tmp_path: Path
) -> None:
    file = tmp_path / "report.json"
    write_text(file, "old")
    with pytest.raises(OSError, match="No space left") as raised:
        fail_in(file, error)
    assert (raised.value.errno, raised.value.filename) == (errno.ENOSPC, str(file))
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]
    assert file.read_text() == "old"


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("a bug"), SystemExit("no")])
def test_other_errors_and_interruptions_leave_the_old_file_alone_and_stay_what_they_are(
    error: BaseException, tmp_path: Path
) -> None:
    file = tmp_path / "report.json"
    write_text(file, "old")
    with pytest.raises(type(error)) as raised:
        fail_in(file, error)
    assert raised.value is error
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]
    assert file.read_text() == "old"


def test_an_error_about_another_file_keeps_its_name(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"), whole_file(tmp_path / "a"):
        Path("/nowhere/b").read_text()


def test_the_old_file_is_there_until_the_new_one_is_whole(tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    write_text(file, "old")
    with whole_file(file) as temporary:
        temporary.write_text("new")
        assert file.read_text() == "old"
    assert file.read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]


def test_text_is_the_same_on_every_system_and_may_hold_names_that_are_not_utf8(
    tmp_path: Path,
) -> None:
    file = tmp_path / "left_out_images.txt"
    write_text(file, "é\n" + os.fsdecode(b"\xff\n"), errors="surrogateescape")
    assert file.read_bytes() == b"\xc3\xa9\n\xff\n"


def test_a_pipe_or_device_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reading = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write_text(pipe, "report")
    assert os.read(reading, 100) == b"report"
    os.close(reading)
    assert pipe.is_fifo()
