"""The completion of the mouth: starts as the paint, touches nothing else, learns, and is judged by honest measures."""

from __future__ import annotations

import torch

from generator.train.renderer import Completion, Patches, RendererReport, completion_loss, measure


def _patches(num: int = 6) -> Patches:
    """Made-up mouths whose paint is too dark."""
    torch.manual_seed(5)
    photo = torch.nn.functional.interpolate(torch.rand(num, 3, 12, 12), size=(32, 32), mode="bilinear")
    inside = torch.zeros(num, 1, 32, 32)
    inside[..., 10:22, 6:26] = 1
    paint = photo * (1 - inside) + 0.6 * photo * inside
    return Patches(photo, paint, inside, [str(k) for k in range(num)], torch.arange(num) % 2 == 0)


def test_untrained_it_is_the_paint_and_never_touches_the_outside() -> None:
    patches, network = _patches(), Completion(8)
    made = network(patches.photo_NCHW, patches.paint_NCHW, patches.inside_NCHW)
    torch.testing.assert_close(made, patches.paint_NCHW)
    torch.nn.init.normal_(network.last.weight)
    made = network(patches.photo_NCHW, patches.paint_NCHW, patches.inside_NCHW)
    torch.testing.assert_close(made * (1 - patches.inside_NCHW), patches.photo_NCHW * (1 - patches.inside_NCHW))


def test_what_is_hidden_is_not_looked_at() -> None:
    patches, network = _patches(), Completion(8)
    torch.nn.init.normal_(network.last.weight)
    peeked = patches.photo_NCHW + patches.inside_NCHW
    made = [network(photo, patches.paint_NCHW, patches.inside_NCHW) for photo in (patches.photo_NCHW, peeked)]
    torch.testing.assert_close(*made)


def test_it_learns_and_the_measures_say_so() -> None:
    patches, network = _patches(), Completion(8)
    optimiser = torch.optim.Adam(network.parameters(), 5e-3)
    for _ in range(60):
        loss = completion_loss(network, patches.photo_NCHW, patches.paint_NCHW, patches.inside_NCHW)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    before, after = measure(None, patches), measure(network, patches)
    assert after["l1"] < 0.6 * before["l1"]
    same = Patches(patches.photo_NCHW, patches.photo_NCHW, patches.inside_NCHW, patches.names, patches.is_held_out_N)
    assert measure(None, same) == {"l1": 0.0, "gradient": 0.0, "ssim": 1.0}


def test_it_wins_only_in_everything() -> None:
    def report(**network: float) -> RendererReport:
        paint = {"l1": 0.1, "gradient": 0.05, "ssim": 0.5}
        return RendererReport(None, 1, 1, 1, 1, paint, {**paint, **network}, 1.0)  # type: ignore[arg-type]

    assert not report(l1=0.05).wins
    assert report(l1=0.05, gradient=0.04, ssim=0.6).wins


def test_held_out_portraits_stay_apart() -> None:
    patches = _patches()
    seen, unseen = patches.part(False), patches.part(True)
    assert not set(seen.names) & set(unseen.names) and len(seen.names) + len(unseen.names) == 6
