import numpy as np
import pytest

from world import captions, scenes


def test_the_same_seed_gives_the_same_clip():
    a, b, c = (scenes.render(scenes.draw_scene(np.random.default_rng(seed))) for seed in (3, 3, 4))
    assert (a == b).all() and (a != c).any()


def test_one_combination_in_ten_is_held_out_and_no_word_is():
    assert abs(len(scenes.HELD_OUT) / len(scenes.COMBINATIONS) - 0.1) < 0.01
    assert not set(scenes.HELD_OUT) & set(scenes.SEEN)
    assert {word for c in scenes.SEEN for word in c} == {word for c in scenes.HELD_OUT for word in c}
    rng = np.random.default_rng(0)
    for _ in range(300):
        thing = scenes.draw_scene(rng).things[0]
        assert (thing.shape, thing.colour, thing.direction, thing.speed) in scenes.SEEN


@pytest.mark.parametrize("size, fps", [((64, 64), 12), ((32, 32), 24), ((96, 96), 6)])
def test_any_size_and_rate_shows_the_same_motion(size, fps):
    scene = scenes.draw_scene(np.random.default_rng(1))
    one, other = scenes.render(scene, 13, 32, 32, 12), scenes.render(scene, 12 * fps // 12 + 1, *size, fps)
    k = size[0] // 32
    shrunk = other[-1].reshape(32, k, 32, k, 3).mean(axis=(1, 3))  # both show the scene at one second
    assert abs(shrunk - one[12]).mean() < 1.5


def test_things_keep_their_speed_and_bounce_off_the_edge():
    for combination in scenes.COMBINATIONS[::7]:
        scene = scenes.draw_scene(np.random.default_rng(2), combination, extent=(1.0, 1.5))
        thing, times = scene.things[0], np.arange(0, 30, 0.01)
        path = scenes.simulate(scene, times, (1.0, 1.5))[0]
        assert (path >= thing.size - 1e-9).all() and (path <= np.array([1.5, 1.0]) - thing.size + 1e-9).all()
        axis = 0 if combination[2] in ("left", "right") else 1
        moved = abs(np.diff(path[:, axis]))
        assert np.median(moved) / 0.01 == pytest.approx(scenes.SPEEDS[combination[3]])
        assert path[:, axis].min() == pytest.approx(thing.size, abs=0.01) and np.ptp(path[:, 1 - axis]) < 1e-9


def test_a_calm_clip_meets_no_edge():
    rng = np.random.default_rng(0)
    for _ in range(200):
        steps = np.diff(scenes.simulate(scenes.draw_scene(rng, calm_seconds=4 / 3), np.arange(17) / 12)[0], axis=0)
        assert np.allclose(steps, steps[0])


def test_coverage_is_the_shapes_area():
    for shape, area in {"circle": np.pi, "square": 4, "triangle": 2}.items():
        drawn = scenes.coverage(shape, 0.25, np.array([[0.5, 0.75]]), 64, 96).sum()
        assert drawn == pytest.approx(area * 16**2, rel=0.02)


def test_captions():
    thing = scenes.Thing("circle", "red", 0.2, (0.5, 0.5), "left", "slowly")
    assert captions.describe(scenes.Scene([thing])) == "a red circle moving left slowly"
    assert captions.describe(scenes.Scene([thing]), ("speed",)) == "a red circle moving slowly" and captions.describe(scenes.Scene([thing]), ()) == "a red circle"
    assert {word for c in scenes.COMBINATIONS for word in c} <= set(captions.vocab())
