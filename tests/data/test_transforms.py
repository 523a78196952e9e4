import numpy as np
import pytest
import torch
from PIL import Image

from difflab.data.transforms import crop_draws, fit, fit_drawn, fit_whole, flips


def picture(width, height, channels=3):
    rng = np.random.default_rng(0)
    return torch.from_numpy(rng.integers(0, 256, (channels, height, width), dtype=np.uint8))


def as_pillow(image):
    return Image.fromarray(image.permute(1, 2, 0).numpy())


@pytest.mark.parametrize("crop", ["none", "adm", "edm", "resize_short"])
def test_an_image_of_the_right_size_is_unchanged(crop):
    image = picture(16, 16)
    assert torch.equal(fit(image, 16, crop), image)


@pytest.mark.parametrize(("width", "height"), [(40, 70), (33, 17), (16, 90), (10, 12)])
@pytest.mark.parametrize("crop", ["adm", "edm", "resize_short"])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_rule_gives_the_square_asked_for(width, height, crop, channels):
    assert fit(picture(width, height, channels), 16, crop).shape == (channels, 16, 16)


def test_adm_halves_by_box_then_goes_bicubic_to_the_short_side():
    image = picture(40, 72)
    # 40x72 is halved once (20x36; 20 < 32), then scaled by 16/20 to 16x29 and cut from row (29-16)//2 = 6.
    halved = as_pillow(image).resize((20, 36), Image.Resampling.BOX)
    expected = np.array(halved.resize((16, 29), Image.Resampling.BICUBIC))[6:22]
    np.testing.assert_array_equal(fit(image, 16, "adm").permute(1, 2, 0).numpy(), expected)


def test_edm_cuts_first_and_then_goes_lanczos():
    image = picture(40, 71)
    square = Image.fromarray(image.permute(1, 2, 0).numpy()[15:55])
    expected = np.array(square.resize((16, 16), Image.Resampling.LANCZOS))
    np.testing.assert_array_equal(fit(image, 16, "edm").permute(1, 2, 0).numpy(), expected)


def test_resize_short_is_one_bicubic_step():
    image = picture(40, 72)
    expected = np.array(as_pillow(image).resize((16, 29), Image.Resampling.BICUBIC))[6:22]
    np.testing.assert_array_equal(fit(image, 16, "resize_short").permute(1, 2, 0).numpy(), expected)


@pytest.mark.parametrize(("draws", "side", "top", "left"), [((0, 5, 7), 16, 5, 0), ((3, 9, 2), 19, 9, 2)])
def test_adm_random_halves_resizes_to_the_side_drawn_and_cuts_where_drawn(draws, side, top, left):
    image = picture(80, 144)
    # Sides 16..20 may be drawn; 80x144 is halved while it is at least twice that: to 20x36.
    halved = as_pillow(image)
    for size in ((40, 72), (20, 36)):
        halved = halved.resize(size, Image.Resampling.BOX)
    resized = np.array(halved.resize((side, round(36 * side / 20)), Image.Resampling.BICUBIC))
    expected = resized[top : top + 16, left : left + 16]
    np.testing.assert_array_equal(fit_drawn(image, 16, "adm", draws).permute(1, 2, 0).numpy(), expected)


def test_adm_random_halves_for_the_side_drawn_and_not_for_the_size():
    image = picture(38, 38)
    for side, steps in ((19, [19]), (20, [38, 20])):
        expected = as_pillow(image).resize((steps[0], steps[0]), Image.Resampling.BOX)
        expected = np.array(expected.resize((side, side), Image.Resampling.BICUBIC))[:16, :16]
        ours = fit_drawn(image, 16, "adm", (side - 16, 0, 0)).permute(1, 2, 0).numpy()
        np.testing.assert_array_equal(ours, expected)


def test_adm_random_enlarges_an_image_that_has_the_size():
    image = picture(16, 16)
    enlarged = np.array(as_pillow(image).resize((20, 20), Image.Resampling.BICUBIC))
    corner = fit_drawn(image, 16, "adm", (4, 4, 4)).permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(corner, enlarged[4:, 4:])
    assert torch.equal(fit_drawn(image, 16, "adm", (0, 3, 3)), image), (
        "the smallest side leaves one place for the square"
    )


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("width", "height"), [(40, 70), (33, 17), (16, 90), (10, 12)])
def test_adm_random_gives_the_square_asked_for(width, height, channels):
    for draws in crop_draws(0, 0, np.arange(20)).tolist():
        assert fit_drawn(picture(width, height, channels), 16, "adm", draws).shape == (channels, 16, 16)


def test_area_is_the_mean_of_the_centre_square():
    image = picture(40, 71)
    expected = np.array(as_pillow(image).crop((0, 15, 40, 55)).resize((10, 10), Image.Resampling.BOX))
    np.testing.assert_array_equal(fit(image, 10, "area").permute(1, 2, 0).numpy(), expected)
    means = image[:, 15:55].double().unflatten(2, (10, 4)).unflatten(1, (10, 4)).mean(dim=(2, 4))
    assert (fit(image, 10, "area") - means).abs().max() < 1


@pytest.mark.parametrize(
    ("draws", "side", "top", "left"), [((0, 5, 7), 20, 5, 7), ((20, 9, 2), 40, 9, 0), ((21, 52, 0), 20, 0, 0)]
)
def test_area_random_takes_a_square_from_half_of_the_short_side_to_all_of_it(draws, side, top, left):
    image = picture(40, 71)
    square = as_pillow(image).crop((left, top, left + side, top + side))
    expected = np.array(square.resize((16, 16), Image.Resampling.BOX))
    np.testing.assert_array_equal(fit_drawn(image, 16, "area", draws).permute(1, 2, 0).numpy(), expected)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("width", "height"), [(40, 70), (33, 17), (16, 90), (10, 12)])
def test_area_random_gives_the_square_asked_for(width, height, channels):
    for draws in crop_draws(0, 0, np.arange(20)).tolist():
        assert fit_drawn(picture(width, height, channels), 16, "area", draws).shape == (channels, 16, 16)


def test_crop_draws_depend_on_seed_epoch_and_index_alone():
    indices = np.arange(10_000)
    first = crop_draws(0, 0, indices)
    assert np.array_equal(crop_draws(0, 0, indices[::-1]), first[::-1])
    sides = np.bincount(first[:, 0] % 5)
    assert np.all(abs(sides - 2000) < 200), "every side is drawn as often"
    for column in range(3):
        assert abs((first[:, column] % 2).mean() - 0.5) < 0.02
        for other in (crop_draws(0, 1, indices), crop_draws(1, 0, indices), np.roll(first, 1, axis=1)):
            assert not np.any(other[:, column] == first[:, column])


def test_another_size_without_a_rule_names_both_sizes():
    with pytest.raises(ValueError, match=r"the image is 40x72 px, wanted is 16x16: set data.image_size, or data.crop"):
        fit(picture(40, 72), 16, "none")


def test_flips_depend_on_seed_epoch_and_index_alone():
    indices = np.arange(10_000)
    first = flips(0, 0, indices)
    assert np.array_equal(flips(0, 0, indices[::-1]), first[::-1])
    assert abs(first.mean() - 0.5) < 0.02
    for other in (flips(0, 1, indices), flips(1, 0, indices)):
        assert abs((first == other).mean() - 0.5) < 0.02


def placed(height, width, size):
    """Which rows and columns of a padded black image on white are the image's."""
    image = fit_whole(torch.zeros(3, height, width, dtype=torch.uint8), size, 255)
    assert image.shape == (3, size, size)
    inside = (image == 0).all(0)
    rows, columns = (torch.where(inside.any(axis))[0].tolist() for axis in (1, 0))
    assert inside.sum() == len(rows) * len(columns)
    assert (image[:, ~inside] == 255).all()
    return (rows[0], rows[-1]), (columns[0], columns[-1])


@pytest.mark.parametrize(
    ("height", "width", "size", "expected"),
    [
        (20, 40, 8, ((2, 5), (0, 7))),
        (40, 20, 8, ((0, 7), (2, 5))),
        # Smaller than asked: enlarged.
        (2, 4, 8, ((2, 5), (0, 7))),
        (3, 3, 8, ((0, 7), (0, 7))),
        # An odd rest: one row more below.
        (5, 8, 8, ((1, 5), (0, 7))),
        (8, 8, 8, ((0, 7), (0, 7))),
        # 8 * 3 / 16 = 1.5 is rounded to even.
        (3, 16, 8, ((3, 4), (0, 7))),
        # A line keeps a pixel.
        (1, 100, 8, ((3, 3), (0, 7))),
    ],
)
def test_padding_keeps_the_whole_image_in_the_middle(height, width, size, expected):
    assert placed(height, width, size) == expected


@pytest.mark.parametrize("size", [7, 8, 21, 64])
def test_what_is_padded_is_resized_by_pillows_bicubic(size):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 40, 3), dtype=np.uint8)
    height = round(size / 2)
    expected = np.asarray(Image.fromarray(pixels).resize((size, height), Image.Resampling.BICUBIC))
    padded = fit_whole(torch.from_numpy(pixels).permute(2, 0, 1), size, 7).permute(1, 2, 0).numpy()
    top = (size - height) // 2
    assert (padded[top : top + height] == expected).all()
    assert (padded[:top] == 7).all()
    assert (padded[top + height :] == 7).all()


def test_a_gray_image_is_padded_in_gray():
    image = fit_whole(torch.zeros(1, 2, 4, dtype=torch.uint8), 4, 255)
    assert image[0, :, 0].tolist() == [255, 0, 0, 255]


@pytest.mark.parametrize(("draws", "left", "top"), [((0, 0, 0), 0, 0), ((9, 5, 16), 16, 0), ((0, 0, 25), 8, 0)])
def test_resize_short_random_cuts_a_square_anywhere_along_the_long_side(draws, left, top):
    image = torch.randint(0, 256, (3, 32, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    resized = Image.fromarray(image.permute(1, 2, 0).numpy()).resize((32, 16), Image.Resampling.BICUBIC)
    expected = np.asarray(resized.crop((left, top, left + 16, top + 16)))
    np.testing.assert_array_equal(fit_drawn(image, 16, "resize_short", draws).permute(1, 2, 0).numpy(), expected)


def test_resize_short_random_keeps_an_image_of_the_size():
    image = torch.randint(0, 256, (1, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(fit_drawn(image, 16, "resize_short", (3, 4, 5)), image)
