import json
import re
from dataclasses import replace

import numpy as np
import pytest
import timm
import torch

from rga_timm.data import create_dataset
from rga_timm.data.datasets.pedestrians import draw
from rga_timm.evaluation import (
    Compute,
    Embeddings,
    ModelRecord,
    Protocol,
    Reranking,
    evaluate_dataset,
)
from rga_timm.report_page import PageOptions, Side, evaluate_side, write_page

COMPUTE = Compute(num_workers=0, progress=False)
PROTOCOL = Protocol((64, 32), "bilinear", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@pytest.fixture(scope="module")
def splits(tmp_path_factory):
    root = draw(
        tmp_path_factory.mktemp("page") / "market1501",
        train_ids=1, train_images=2, test_ids=12, gallery_images=3, distractors=5, junk=2,
        progress=False,
    )  # fmt: skip
    return create_dataset("market1501", root)


@pytest.fixture(scope="module")
def model():
    return timm.create_model("test_rga_resnet.pedestrians", pretrained=True)


def side_of(model, splits, protocol=PROTOCOL, name="net"):
    return evaluate_side(model, splits, protocol, ModelRecord(name), compute=COMPUTE)


def write(model, splits, path, protocol=PROTOCOL, **options):
    side = side_of(model, splits, protocol)
    written = write_page(path, splits, [side], options=PageOptions(**options), progress=False)
    text = path.read_text(encoding="utf-8")
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', text)[1]
    return side.report, written, text, json.loads(data)


def test_report_is_that_of_the_evaluation(model, splits, tmp_path):
    report, *_ = write(model, splits, tmp_path / "page.html")
    expected = evaluate_dataset(
        model, splits, PROTOCOL, ModelRecord("net"), compute=COMPUTE, per_query=True
    )
    assert report == expected


def test_page_shows_scores_protocol_and_every_query(model, splits, tmp_path):
    report, written, text, data = write(model, splits, tmp_path / "page.html", queries=9, top=5)
    assert f"<dd>{100 * report.metrics['mAP']:.1f}<small>" in text
    assert "64x32, embedding, cosine" in text
    assert splits.fingerprint in text
    assert [q["pid"] for q in data["queries"]] == splits.query.pids.tolist()
    assert [q["first"][0] for q in data["queries"]] == report.per_query["first_match_rank"]
    assert len(data["lists"]) == written["queries"] == 9
    for one in data["lists"]:
        query = data["queries"][one["query"]]
        (results,) = one["results"]
        assert len(results) == 5
        for result in results:
            assert result["right"] == (result["pid"] == query["pid"])
            assert not (result["right"] and result["camera"] == query["camera"])
        (first,) = query["first"]
        rights = [i for i, result in enumerate(results, 1) if result["right"]]
        assert (rights[0] if rights else None) == (first if first <= 5 else None)
    shown = {r["image"] for one in data["lists"] for r in one["results"][0]}
    shown |= {f"q{one['query']}" for one in data["lists"]}
    assert set(data["images"]) == shown
    assert written["images"] == len(shown)
    assert written["bytes"] == len(text.encode())


def test_nothing_in_the_page_is_fetched(model, splits, tmp_path):
    _, _, text, _ = write(model, splits, tmp_path / "page.html")
    assert "default-src 'none'" in text
    # Names of SVG's parts, which nobody reads.
    allowed = ("http://www.w3.org/", "http://purl.org/dc/", "http://creativecommons.org/ns")
    for address in re.findall(r'(?:src|href|action|srcset)\s*=\s*["\']?([^"\'\s>]+)', text):
        assert address.startswith(("data:", "#")), address
    assert not re.findall(r"url\((?!#)", text)
    assert all(a.startswith(allowed) for a in re.findall(r"https?://[^\s\"'<]+", text))


def test_names_of_files_cannot_end_the_data(model, splits, tmp_path):
    evil = splits.query.images[0]._replace(path="</script><script>alert(1)</script>.jpg")
    query = type(splits.query)(splits.query.root, [evil, *splits.query.images[1:]])
    other = replace(splits, name="evil <b>", query=query)
    rng = np.random.default_rng(0)

    def features(reader):
        values = torch.tensor(rng.normal(size=(len(reader), 4))).float()
        return Embeddings(values, reader.pids, reader.camids)

    q, g = features(query), features(splits.gallery)
    report = evaluate_dataset(
        model, splits, PROTOCOL, ModelRecord("<i>net"), compute=COMPUTE, per_query=True
    )
    path = tmp_path / "page.html"
    options = PageOptions(no_images=True)
    write_page(path, other, [Side(report, q, g)], options=options, progress=False)
    text = path.read_text(encoding="utf-8")
    assert "<script>alert" not in text
    assert "<i>net" not in text
    assert text.count("</script>") == 2


def test_budget_is_kept_by_fewer_queries(model, splits, tmp_path):
    _, full, *_ = write(model, splits, tmp_path / "full.html", queries=30)
    budget = 0.6 * full["bytes"] / 1e6
    _, written, text, _ = write(model, splits, tmp_path / "small.html", queries=30, budget=budget)
    assert written["bytes"] <= budget * 1e6
    assert 1 <= written["queries"] < full["queries"]
    assert f"{written['queries']} queries with their" in text
    with pytest.raises(ValueError, match="one query alone takes"):
        write(model, splits, tmp_path / "none.html", budget=0.001)


def test_pictures_can_be_left_out(model, splits, tmp_path):
    _, written, text, data = write(model, splits, tmp_path / "page.html", no_images=True)
    assert data["images"] == {}
    assert written["images"] == 0
    assert "data:image" not in text
    assert "Pictures were left out." in text


def test_models_without_attention_have_pictures_without_maps(splits, tmp_path):
    model = timm.create_model("test_resnet", num_classes=0)
    _, _, text, data = write(model, splits, tmp_path / "page.html", queries=3)
    assert all(image["maps"] == [[]] for image in data["images"].values())
    assert "attention of a stage" not in text


def test_re_ranked_lists_are_refused(model, splits, tmp_path):
    protocol = Protocol((64, 32), "bilinear", (0.5,) * 3, (0.5,) * 3, rerank=Reranking())
    with pytest.raises(ValueError, match="the page shows plain ranked lists"):
        write(model, splits, tmp_path / "page.html", protocol)


@pytest.mark.parametrize("options", [{"queries": 0}, {"top": 0}, {"budget": 0}])
def test_options_that_leave_nothing_are_refused(options):
    with pytest.raises(ValueError, match="a page needs one query"):
        PageOptions(**options)


def test_two_models_are_shown_side_by_side(model, splits, tmp_path):
    torch.manual_seed(0)
    untrained = timm.create_model("test_rga_resnet")
    sides = [side_of(model, splits, name="good"), side_of(untrained, splits, name="bad")]
    path = tmp_path / "page.html"
    written = write_page(path, splits, sides, options=PageOptions(queries=9), progress=False)
    text = path.read_text(encoding="utf-8")
    data = json.loads(re.search(r'id="data">(.*?)</script>', text)[1])
    assert data["models"] == ["A: good", "B: bad"]
    assert "| by query        | B - A |" in text
    assert written["queries"] == len(data["lists"]) == 9
    for one in data["lists"]:
        query = data["queries"][one["query"]]
        found = [side[0]["right"] for side in one["results"]]
        assert found == [rank == 1 for rank in query["first"]]
        if one["group"] != "random":
            assert found == [one["group"] == "first", one["group"] == "second"]
    (name, image), *_ = data["images"].items()
    assert name.startswith("q")
    assert [len(maps) for maps in image["maps"]] == [4, 4]
    assert image["maps"][0] != image["maps"][1]


def test_models_on_other_images_are_not_compared(model, splits, tmp_path):
    side = side_of(model, splits)
    report = replace(side.report, dataset={**side.report.dataset, "fingerprint": "other"})
    with pytest.raises(ValueError, match="compared on the same images"):
        write_page(tmp_path / "page.html", splits, [side, replace(side, report=report)])
    with pytest.raises(ValueError, match="one report or two"):
        write_page(tmp_path / "page.html", splits, [side] * 3)
