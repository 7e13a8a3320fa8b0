"""Frames between a worker and its child processes: found again however the bytes are cut."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from tidings_tasks.worker.frames import Frame, FrameReader, pack

ARGUMENTS = st.lists(st.one_of(st.text(max_size=20), st.integers(-(2**53), 2**53), st.booleans()), max_size=4)
FRAMES = st.lists(
    st.builds(Frame, st.text(min_size=1, max_size=9), ARGUMENTS, st.binary(max_size=60)), max_size=6
)


@given(frames=FRAMES, cuts=st.lists(st.integers(0, 400), max_size=10))
def test_frames_survive_any_cut(frames: list[Frame], cuts: list[int]) -> None:
    """All of them, in order, with their bytes as they were."""
    data = b"".join(pack(frame.what, *frame.args, body=frame.body) for frame in frames)
    places = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    reader = FrameReader()
    found = [frame for begin, end in itertools.pairwise(places) for frame in reader.feed(data[begin:end])]
    assert found == frames
