"""What is taken in, once; what a coarse answer leaves out; likeness, heat, manifests: the parts of a report."""

from __future__ import annotations

import io
import json
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from detector.bands import band_of, coarse
from detector.exhibit import take_in
from detector.face import FaceBox, FaceFinder
from detector.manifests import MAX_DEPTH, MAX_NODES, manifest_tree
from detector.observation import FramesByIndex, Observer, frames_looked_at
from detector.overlay import heat_mp4, heat_png
from detector.perceptual import distance, perceptual_hash
from detector.report import Evidence, decide
from detector.score import DetectorScore, HeatPatch, Segment
from tests.detector.drawing import draw_face
from watermark.credentials import CredentialReading
from watermark.encoding import encode_clip
from watermark.media import CLIP_LIMITS, Clip, decode_clip, decode_colour_track, frame_times


@pytest.fixture(scope="module")
def clip_mp4(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    face_HWC = draw_face(30, 160)
    frames_THWC = np.stack([np.roll(face_HWC, round(3 * np.sin(i / 4)), axis=1) for i in range(40)])
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    encode_clip(Clip(frames_THWC, 25.0), path)
    return path.read_bytes()


def test_a_clip_is_decoded_once_and_gives_every_reader_what_two_decodings_would(clip_mp4: bytes) -> None:
    exhibit = take_in(clip_mp4, "video/mp4", CLIP_LIMITS)
    whole, colour = decode_clip(clip_mp4, fit_within_px=960), decode_colour_track(clip_mp4)
    assert isinstance(exhibit.shown, Clip) and exhibit.colour is not None
    frames = exhibit.shown.frames_THWC
    assert isinstance(frames, FramesByIndex) and len(frames) == len(whole.frames_THWC) == 40
    assert frames.indices == frames_looked_at(40, exhibit.shown.rate_hz)
    for index in frames.indices:
        np.testing.assert_array_equal(frames[index], whole.frames_THWC[index])
    np.testing.assert_array_equal(exhibit.colour.planes_T2HW, colour.planes_T2HW)
    np.testing.assert_array_equal(exhibit.colour.detail_SHW, colour.detail_SHW)
    np.testing.assert_allclose(exhibit.shown.times_T, whole.times_T, atol=1e-6)
    np.testing.assert_array_equal(frame_times(clip_mp4, stop_after_s=0.5), whole.times_T[whole.times_T < 0.5])


def test_an_observer_asks_for_no_other_frames(clip_mp4: bytes, observer: Observer) -> None:
    exhibit = take_in(clip_mp4, "video/mp4", CLIP_LIMITS)
    whole = decode_clip(clip_mp4)
    assert isinstance(exhibit.shown, Clip)
    seen = observer.observe(exhibit.shown.frames_THWC, exhibit.shown.rate_hz)
    expected = observer.observe(whole.frames_THWC, whole.rate_hz)
    assert seen is not None and expected is not None and seen.frame_indices == expected.frame_indices
    np.testing.assert_array_equal(seen.cells_TCGG, expected.cells_TCGG)


def test_a_clip_cut_off_after_its_beginning_is_still_seen(clip_mp4: bytes) -> None:
    """Transport streams have no index: what came is played."""
    target = io.BytesIO()
    with av.open(io.BytesIO(clip_mp4)) as source, av.open(target, "w", format="matroska") as file:
        stream = file.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                file.mux(packet)
    data = target.getvalue()
    exhibit = take_in(data[: int(0.8 * len(data))], "video/x-matroska", CLIP_LIMITS)
    assert exhibit.kind == "clip" and isinstance(exhibit.shown, Clip) and len(exhibit.shown.frames_THWC) > 16


# -- faces


def box(x: float, y: float, side: float = 40.0) -> FaceBox:
    return FaceBox(x, y, side, 0.9, ((x, y),) * 6)


class Scripted(FaceFinder):
    """Finds what it is told."""

    def __init__(self, found: list[list[FaceBox]]) -> None:
        self._found = iter(found)

    def find(self, frame_HWC: np.ndarray) -> list[FaceBox]:
        return sorted(next(self._found), key=lambda face: -face.side_px)


def test_faces_are_followed_each_on_its_own_track() -> None:
    found = [
        [box(100, 100, 60), box(300, 100)],
        [box(104, 100, 60), box(306, 100), box(500, 100)],
        [box(312, 100), box(500, 104)],
        [box(110, 100, 30), box(318, 100), box(496, 100)],
    ]
    frames = [np.zeros((8, 8, 3), np.uint8)] * 4
    tracks, most = Scripted(found).tracks(frames, 4)
    assert most == 3
    main, *others = tracks
    # the main face is not seen in the third frame: another takes its place, as after a cut
    assert [face and face.centre_x for face in main][:2] == [100, 104]
    assert [300, 306] in [[face and face.centre_x for face in track][:2] for track in others]
    assert len(Scripted(found).tracks(frames, 2)[0]) == 2
    assert Scripted([[] for _ in frames]).tracks(frames, 4) == ([], 0)


# -- bands


@pytest.mark.parametrize(
    ("p", "band"),
    [(None, None), (0.0, "very_low"), (0.05, "low"), (0.25, "medium"), (0.5, "high"), (0.84, "high"),
     (0.85, "very_high"), (1.0, "very_high")],
)  # fmt: skip
def test_bands(p: float | None, band: str | None) -> None:
    assert band_of(p, 0.85) == band


def test_a_coarse_answer_says_the_same_verdict_and_no_number() -> None:
    part = {"start_s": 0.0, "end_s": 1.0, "face": 0, "p": 0.123456, "band": "low"}
    layer = {
        "state": "scored", "p": 0.123456, "band": "low", "llr": -1.23456, "ood": 0.123456,
        "conformal_set": ["authentic"], "timeline": [part],
        "faces": [{**part, "box": [0.123456, 0, 1, 1]}], "heatmap_url": "/x",
    }  # fmt: skip
    report: dict[str, Any] = {"verdict": "no_evidence", "layers": {"detector": layer, "c2pa": {"state": "absent"}}}
    answer = coarse(report)
    assert "23456" not in json.dumps(answer) and answer["verdict"] == "no_evidence" and answer["tier"] == "public"
    assert answer["layers"]["detector"]["timeline"][0]["band"] == "low"
    assert layer["p"] == 0.123456, "the fine report is left as it is"


# -- likeness


def test_pictures_that_look_alike_have_near_hashes() -> None:
    one, other = draw_face(1, 256), draw_face(2, 256)
    out = io.BytesIO()
    Image.fromarray(one).resize((200, 200)).save(out, "JPEG", quality=40)
    again = np.asarray(Image.open(io.BytesIO(out.getvalue())))
    mine = perceptual_hash(one)
    assert distance([mine], [perceptual_hash(again)]) <= 4
    assert distance([mine], [perceptual_hash(other)]) > 8
    assert distance([], [mine]) == 64 and 0 <= mine < 2**64


# -- overlays


@pytest.mark.parametrize("left", [40.0, -30.0, 120.0])
def test_heat_is_drawn_where_it_lies(clip_mp4: bytes, left: float) -> None:
    exhibit = take_in(clip_mp4, "video/mp4", CLIP_LIMITS)
    heat_GG = np.zeros((14, 14), np.float32)
    heat_GG[:7], heat_GG[7:] = 0.1, -0.1
    score = DetectorScore(
        0.9, 0.5, 2.0, ("synthetic",), 0.3, (Segment(0.0, 1.6, 0, 0.9),), 16, 1, 90.0, (), (),
        (HeatPatch(0.0, 1.6, 0, left, 40.0, 80.0, heat_GG),),
    )  # fmt: skip
    png = heat_png(exhibit, score, 0.85)
    assert png is not None
    drawn_HWC = np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)
    assert drawn_HWC.shape[1] == 160 and drawn_HWC.shape[0] > 160
    columns = slice(max(0, round(left) + 10), min(160, round(left) + 70))
    hot, cold = drawn_HWC[50:70, columns], drawn_HWC[90:110, columns]
    assert (hot[..., 0] - hot[..., 2]).mean() > (cold[..., 0] - cold[..., 2]).mean() + 60
    mp4 = heat_mp4(exhibit, score, 0.85)
    assert mp4 is not None and len(decode_clip(mp4).frames_THWC) == 40
    assert heat_png(exhibit, DetectorScore(None, 0.5, None, (), None, (), 0, 0, 0.0, ()), 0.85) is None


# -- manifests


def nested(depth: int, breadth: int = 1) -> CredentialReading:
    manifests: dict[str, Any] = {}
    for nth in range(depth):
        manifests[f"urn:{nth}"] = {
            "title": "a" * 500,
            "claim_generator_info": [{"name": "tool\n", "version": "1"}],
            "signature_info": {"common_name": "Kim", "issuer": "Example"},
            "assertions": [{"label": "c2pa.actions.v2", "data": {"actions": [{"action": "c2pa.created"}]}}],
            "ingredients": [{"title": f"in {nth}", "active_manifest": f"urn:{nth + 1}"}] * breadth,
        }
    return CredentialReading("valid", manifest=manifests["urn:0"], manifest_id="urn:0", manifests=manifests)


def num_nodes(tree: dict[str, Any] | None) -> int:
    if tree is None or tree.get("is_cut"):
        return 0
    return 1 + sum(num_nodes(each["manifest"]) for each in tree["ingredients"])


def test_a_tree_of_manifests_is_bounded() -> None:
    tree = manifest_tree(nested(100))
    assert num_nodes(tree) == MAX_DEPTH and tree is not None
    assert len(tree["title"]) == 200 and tree["generator"] == "tool 1" and tree["signer"] == "Kim, Example"
    assert num_nodes(manifest_tree(nested(7, breadth=30))) <= MAX_NODES
    assert manifest_tree(CredentialReading("absent")) is None
    odd = CredentialReading("valid", manifest={"ingredients": "x", "assertions": [1]}, manifest_id="u")
    assert num_nodes(manifest_tree(odd)) == 1


def test_no_score_is_needed_where_none_could_matter() -> None:
    """The rules that make the network superfluous: 1 and 2, whatever it would say."""
    for p in (0.0, 1.0, None):
        assert decide(Evidence("detected", "absent", None, p, 0.8, ()))[0] == "generated_here"
