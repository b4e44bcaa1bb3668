"""CPU time of a clip in many ways, interleaved video by video: against decord, in views, from other stored forms."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from statistics import median

from morphmlp.benchmarks.clip_kinds import ClipKind
from morphmlp.benchmarks.clip_process import ClipProcess
from morphmlp.benchmarks.rounds import interleaved, median_ratio
from morphmlp.benchmarks.stored_forms import StoredForm
from morphmlp.data.decoding.backends import decoder_fault

_PRODUCT = "isolated pyav"
"""As decode tasks open videos by default."""
_FORMS: tuple[StoredForm, ...] = ("mp4", "frame_folder", "packed", "webm")


@dataclass(frozen=True, kw_only=True)
class ClipCosts:
    """Medians over clips; ratios are medians over pairs on the same frames of the same video, in CPU time."""

    ratio_to_decord: float | None
    """Training clips a second and core, over plain decord's with the same cropping; None where decord can't be used."""
    in_process_ratio_to_decord: float | None
    """`ratio_to_decord` without a separate process around the decoder."""
    views4_ratio: float
    """CPU time of four test views of a video over that of one training clip."""
    repeats2_ratio: float
    """CPU time of a video with two repeats over that with one."""
    prepared_ratio: float
    """Training clips a second and core from a prepared copy, over those from the original."""
    clips_per_s: Mapping[str, float]
    """Training clips a second and core by stored form."""
    cpu_ms: Mapping[str, float]
    """CPU time of one video in each way, milliseconds."""
    rounds: int
    videos: int


@dataclass(frozen=True, kw_only=True)
class _Way:
    opener: str
    kind: ClipKind
    paths: Sequence[str]


def measure_clip_costs(
    forms: Mapping[StoredForm, Sequence[str]], *, rounds: int, on_progress: Callable[[int], None] = lambda _: None
) -> ClipCosts:
    """Extract clips from every video in every way, interleaved in random order.

    Args:
        forms: The same videos in each stored form.
        rounds: Clips of each video in each way; each round has a random start of its own, the same for all ways.
        on_progress: Called with the number of finished rounds.

    Raises:
        FailedError: A way failed on a video.
    """
    ways: dict[str, _Way] = {
        "product": _Way(opener=_PRODUCT, kind="train", paths=forms["mp4"]),
        "in process": _Way(opener="pyav", kind="train", paths=forms["mp4"]),
        "two repeats": _Way(opener=_PRODUCT, kind="train twice", paths=forms["mp4"]),
        "four views": _Way(opener=_PRODUCT, kind="four views", paths=forms["mp4"]),
        **{form: _Way(opener=_PRODUCT, kind="train", paths=paths) for form, paths in forms.items() if form != "mp4"},
    }
    if decoder_fault("decord") is None:
        ways["decord"] = _Way(opener="plain decord", kind="train", paths=forms["mp4"])
    times = _cpu_times(ways, rounds=rounds, on_progress=on_progress)
    product, decord = times["product"], times.get("decord")
    typical = {name: median(seconds) for name, seconds in times.items()}
    typical["mp4"] = typical["product"]
    return ClipCosts(
        ratio_to_decord=None if decord is None else median_ratio(decord, product),
        in_process_ratio_to_decord=None if decord is None else median_ratio(decord, times["in process"]),
        views4_ratio=median_ratio(times["four views"], product),
        repeats2_ratio=median_ratio(times["two repeats"], product),
        prepared_ratio=median_ratio(product, times["prepared"]),
        clips_per_s={form: 1 / typical[form] for form in _FORMS},
        cpu_ms={name: 1000 * seconds for name, seconds in typical.items()},
        rounds=rounds,
        videos=len(forms["mp4"]),
    )


def _cpu_times(ways: Mapping[str, _Way], *, rounds: int, on_progress: Callable[[int], None]) -> dict[str, list[float]]:
    """CPU seconds by way, the same video and start at the same place of every list."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    with ExitStack() as stack:
        processes = {
            opener: stack.enter_context(ClipProcess(opener)) for opener in sorted({way.opener for way in ways.values()})
        }
        for way in ways.values():  # imports, and the first video of each kind, are warm-up
            processes[way.opener].extract(way.paths[0], kind=way.kind, video_id="warm-up", epoch=0)
        for epoch in range(rounds):
            for number in range(len(ways["product"].paths)):
                for _, name in interleaved(list(ways), 1, seed=epoch * 1000 + number):
                    way = ways[name]
                    cost = processes[way.opener].extract(
                        way.paths[number], kind=way.kind, video_id=f"video {number}", epoch=epoch
                    )
                    times[name].append(cost.cpu_s)
            on_progress(epoch + 1)
    return times
