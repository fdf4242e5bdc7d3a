import os
import socket
from dataclasses import replace

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from PIL import Image
from starlette.applications import Starlette
from starlette.responses import HTMLResponse, PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient
from timm.data import create_transform, resolve_model_data_config

import rga_timm
from rga_timm.cli import demo
from rga_timm.cli.demo_offline import OfflinePage
from rga_timm.cli.demo_search import (
    Searcher,
    UnreadableImageError,
    describe,
    message_page,
    read_query,
    results_page,
)
from rga_timm.data import ReidImage, ReidReader, create_dataset, read_images
from rga_timm.evaluation import Compute, Protocol
from rga_timm.explain import attention_maps, overlay

NAME = "test_rga_resnet.pedestrians"


@pytest.fixture(scope="module")
def model():
    return timm.create_model(NAME, pretrained=True, num_classes=0).eval()


@pytest.fixture(scope="module")
def splits(people):
    return create_dataset("market1501", people)


def protocol_of(model, **changes):
    return replace(Protocol.of_data_config(resolve_model_data_config(model)), **changes)


@pytest.fixture(scope="module")
def searcher(model, splits):
    return Searcher(
        model, protocol_of(model), splits.gallery, compute=Compute(batch_size=5, num_workers=0)
    )


def open_rgb(path):
    with Image.open(path) as image:
        return image.convert("RGB")


def preprocess(model, *images):
    """By timm's own transform; these models crop nothing."""
    transform = create_transform(**resolve_model_data_config(model))
    return torch.stack([transform(image) for image in images])


def paths(reader):
    return [reader.root / image.path for image in reader.images]


def test_gallery_is_ranked_by_cosine_similarity(searcher, model, splits):
    query = open_rgb(paths(splits.query)[3])
    indices, similarities = searcher.rank(query)
    gallery = [open_rgb(path) for path in paths(splits.gallery)]
    with torch.no_grad():
        expected = F.cosine_similarity(
            model(preprocess(model, query)), model(preprocess(model, *gallery))
        )
    order = expected.argsort(descending=True)
    assert indices.tolist() == order.tolist()
    torch.testing.assert_close(torch.from_numpy(similarities), expected[order])


def test_query_is_embedded_as_the_gallery_was(model, splits):
    searcher = Searcher(model, protocol_of(model, flip=True, feature="pooled"), splits.gallery)
    indices, similarities = searcher.rank(searcher.picture(4))
    assert indices[0] == 4
    assert similarities[0] == pytest.approx(1)


def test_attention_of_a_stage_lies_over_each_image(searcher, model):
    images = [searcher.picture(0), searcher.picture(5)]
    assert searcher.stages == ["1", "2", "3", "4"]
    maps = attention_maps(model, preprocess(model, *images))[2].spatial
    # Batches of another size move the last bits.
    for i, image in enumerate(searcher.look(images, "3")):
        expected = np.asarray(overlay(images[i], maps[i]), int)
        assert abs(np.asarray(image) - expected).max() <= 1
    assert searcher.look(images, "none") == images


def test_models_without_spatial_attention_have_no_stages(splits):
    for name, options in {
        "test_resnet": {},
        "test_rga_resnet": {"relation": "c"},
    }.items():
        other = timm.create_model(name, num_classes=0, **options)
        searcher = Searcher(other, protocol_of(other, img_size=(64, 32)), splits.gallery)
        assert searcher.stages == []
        image = searcher.picture(0)
        assert searcher.look([image], "1") == [image]
        assert len(searcher.rank(image)[0]) == len(splits.gallery)


def test_broken_gallery_images_are_left_out_and_told(model, people, tmp_path, caplog):
    good, other = sorted(people.glob("query/*.jpg"))[:2]
    for name, content in {
        "a.jpg": good.read_bytes()[:300],
        "b.jpg": good.read_bytes(),
        "c.jpg": b"",
        "d.jpg": other.read_bytes(),
    }.items():
        (tmp_path / name).write_bytes(content)
    searcher = Searcher(model, protocol_of(model), read_images(tmp_path))
    assert [image.path for image in searcher.gallery.images] == ["b.jpg", "d.jpg"]
    assert searcher.rank(open_rgb(other))[0].tolist() == [1, 0]
    assert [r.getMessage().split(":")[1] for r in caplog.records] == [" a.jpg", " c.jpg"]


def test_gallery_without_any_readable_image_is_an_error(model, tmp_path):
    (tmp_path / "a.jpg").write_text("none")
    with pytest.raises(ValueError, match="none of the 1 images of the gallery can be read"):
        Searcher(model, protocol_of(model), read_images(tmp_path))


def test_images_of_tracklets_are_results_of_their_own(model, splits):
    images = (image._replace(tracklet=7) for image in splits.gallery.images[:2])
    searcher = Searcher(model, protocol_of(model), ReidReader(splits.root, images))
    assert searcher.rank(searcher.picture(0))[0].tolist() == [0, 1]


def test_what_is_known_of_an_image_is_said_and_no_more():
    images = [ReidImage("a", 12, 3), ReidImage("b", 0, 3), ReidImage("c", -1, -1)]
    reader = ReidReader(".", images)
    said = [describe(reader, i, True) for i in range(3)]
    assert said == ["person 12, camera 3", "distractor, camera 3", ""]
    assert describe(reader, 0, has_cameras=False) == "person 12"


def test_page_of_results_counts_what_is_above_and_shows_the_nearest(searcher):
    query = searcher.picture(1)
    indices, similarities = searcher.rank(query)
    page = results_page(searcher, query, "none", -1, top=3, known="person 5")
    assert f"{len(indices)} of {len(indices)} gallery images" in page
    assert "the nearest 3 are shown" in page
    assert page.count("<figure") == 4
    assert "person 5" in page
    places = [page.index(searcher.gallery.images[i].path) for i in indices[:3]]
    assert places == sorted(places)
    assert searcher.gallery.images[indices[3]].path not in page

    above = float(similarities[1] + similarities[2]) / 2
    page = results_page(searcher, query, "none", above, top=9)
    assert page.count("<figure") == 3
    assert f"2 of {len(indices)}" in page


def test_page_without_results_says_how_near_the_nearest_is(searcher, splits):
    query = open_rgb(paths(splits.query)[0])
    nearest = searcher.rank(query)[1][0]
    page = results_page(searcher, query, threshold=0.9999)
    assert page.count("<figure") == 1
    assert f"the nearest has {nearest:.3f}" in page


def test_stage_changes_every_picture_of_the_page(searcher):
    def pictures(stage):
        page = results_page(searcher, searcher.picture(0), stage, top=4)
        return [part.split('"')[0] for part in page.split('src="')[1:]]

    plain, second = pictures("none"), pictures("2")
    assert len(plain) == len(second) == 5
    assert all(a != b for a, b in zip(plain, second, strict=True))


def test_file_names_and_messages_cannot_bring_markup_into_the_page(model, people, tmp_path):
    name = '<img src=x onerror="alert(1)">.jpg'
    (tmp_path / name).write_bytes(min(people.glob("query/*.jpg")).read_bytes())
    searcher = Searcher(model, protocol_of(model), read_images(tmp_path))
    page = results_page(searcher, searcher.picture(0), known="<i>")
    assert "<img src=x" not in page
    assert "&lt;img src=x onerror=&quot;alert(1)&quot;&gt;.jpg" in page
    assert "<i>" not in page
    assert "<b>" not in message_page("<b>", is_error=True)


@pytest.mark.parametrize("content", [b"", b"no image", "cut", b"%PDF-1.4"])
def test_file_that_is_no_image_gets_a_message_without_the_folder(people, tmp_path, content):
    if content == "cut":
        content = min(people.glob("query/*.jpg")).read_bytes()[:400]
    file = tmp_path / "query.jpg"
    file.write_bytes(content)
    with pytest.raises(UnreadableImageError, match=r"^query\.jpg cannot be read") as caught:
        read_query(file)
    assert str(tmp_path) not in str(caught.value)


def test_huge_or_deleted_query_gets_a_message(tmp_path, monkeypatch):
    Image.new("1", (100, 100)).save(tmp_path / "huge.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(UnreadableImageError, match="too many pixels"):
        read_query(tmp_path / "huge.png")
    with pytest.raises(UnreadableImageError, match="has been deleted"):
        read_query(tmp_path / "gone.png")


@pytest.mark.faults
def test_query_of_many_pixels_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    Image.new("P", (8000, 7000)).save(tmp_path / "small_file.png")
    assert (tmp_path / "small_file.png").stat().st_size < 100_000
    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", None)
    with pytest.raises(UnreadableImageError, match="8000 x 7000 pixels are more than 50,000,000"):
        read_query(tmp_path / "small_file.png")


@pytest.mark.faults
def test_query_is_turned_upright(tmp_path):
    exif = Image.Exif()
    exif[274] = 6  # the camera was held on its side
    image = Image.new("RGB", (20, 10))
    image.putpixel((0, 0), (255, 255, 255))
    image.save(tmp_path / "query.png", exif=exif)
    query = read_query(tmp_path / "query.png")
    assert query.size == (10, 20)
    assert query.getpixel((9, 0)) == (255, 255, 255)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "I;16"])
def test_queries_of_any_mode_become_rgb(tmp_path, mode):
    file = tmp_path / "query.tif"
    Image.new(mode, (8, 16)).save(file)
    assert read_query(file).mode == "RGB"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--gallery", "nowhere"], "there is no folder nowhere"),
        (["--gallery", "."], "holds no images"),
        (["--gallery", ".", "--dataset", "market1501"], "not allowed with argument"),
        (["--dataset", "viper:split=all", "--data-dir", "."], "Expected one of these layouts"),
        (["--model", "no_model"], "timm knows no model 'no_model'"),
        (["--top", "0"], "--top: must be at least 1, not 0"),
        (["--port", "70000"], "--port 70000: "),
    ],
)
def test_wrong_options_end_with_a_message(
    tmp_path, monkeypatch, capsys, no_model_is_made, arguments, message
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        demo.main(arguments)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_port_in_use_is_told_before_any_work(capsys, no_model_is_made):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(SystemExit):
            demo.main(["--port", str(port)])
    assert f"--port {port}: " in capsys.readouterr().err


def test_default_model_is_one_of_real_people_where_one_lies_here(monkeypatch, tmp_path):
    def listed(name, trained_on, source):
        return rga_timm.hub.listing.ListedCheckpoint(
            name, trained_on, trained_on[0], "mit", source, 1, 0.5, 0.5
        )

    drawn = listed(NAME, ("pedestrians",), str(tmp_path))
    far = listed("rga_resnet18.msmt17", ("msmt17",), "rga-timm/rga_resnet18.msmt17@v1")
    here = listed("rga_resnet50.market1501", ("market1501",), str(tmp_path))
    for table, expected in (
        ([drawn, far, here], here.name),
        ([far, drawn], NAME),
        ([], NAME),
    ):
        monkeypatch.setattr(rga_timm, "list_checkpoints", lambda table=table: table)
        assert demo.default_model(drawn=False) == expected
        assert demo.default_model(drawn=True) == NAME


def test_page_is_local_and_silent_unless_asked_otherwise():
    args = demo.get_parser().parse_args([])
    assert args.share is False
    assert args.host is None  # Gradio's: 127.0.0.1
    assert os.environ["GRADIO_ANALYTICS_ENABLED"] == "False"


def test_examples_are_spread_over_the_queries(splits, tmp_path):
    examples = demo.write_examples(splits.query, 3, tmp_path)
    assert [row for _, row in examples][::2] == [0, len(splits.query) - 1]
    for path, row in examples:
        assert open_rgb(path).tobytes() == open_rgb(paths(splits.query)[row]).tobytes()
    assert len(demo.write_examples(splits.query, 1000, tmp_path)) == len(splits.query)


def test_page_loses_what_fetches_from_other_hosts_and_nothing_else():
    own = (
        '<link rel="stylesheet" href="./assets/a.css"><script src="/b.js"></script>'
        '<a href="https://example.org">é</a><script>const a = "https://example.org"</script>'
    )
    foreign = (
        '<link rel="preconnect"\n href="https://fonts.example.org" crossorigin />'
        '<script\n src="http://example.org/c.js"\n async\n></script>'
        '<script src="//d/e.js"></script>'
    )
    routes = [
        Route("/", lambda _: HTMLResponse(foreign + own + foreign)),
        Route("/text", lambda _: PlainTextResponse(foreign)),
    ]
    app = Starlette(routes=routes)
    app.add_middleware(OfflinePage)
    client = TestClient(app)
    page = client.get("/")
    assert page.text == own
    assert int(page.headers["content-length"]) == len(own.encode())
    assert client.get("/text").text == foreign
