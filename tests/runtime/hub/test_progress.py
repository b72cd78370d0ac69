"""How far a download is, for those who have no terminal."""

from __future__ import annotations

from alm.hub.progress import Progress, megabytes


def test_a_line_comes_now_and_then_with_what_is_left() -> None:
    now, said = [0.0], list[str]()
    progress = Progress(4_000_000_000, said.append, lambda: now[0])
    progress.kept(1_000_000_000)
    for _ in range(4):
        now[0] += 4.0
        progress.add(250_000_000)
    assert said == ["1,750.0 MB of 4,000.0 MB, 62.5 MB/s, 0:36 left"]


def test_small_files_are_told_by_their_bytes() -> None:
    assert [megabytes(n) for n in (0, 12_345, 1_234_567)] == ["0 bytes", "12,345 bytes", "1.2 MB"]
