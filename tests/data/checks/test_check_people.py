from pathlib import Path

from rga_timm.data import Counts, ReidImage, ReidSplits
from rga_timm.data.checks import Finding, check_counts, check_people, format_counts, verdict


def people(*pids_and_cameras: tuple[int, int], tracklets: bool = False) -> list[ReidImage]:
    return [
        ReidImage(f"{number}.png", pid, camid, number // 2 if tracklets else -1)
        for number, (pid, camid) in enumerate(pids_and_cameras)
    ]


TRAIN = people((1, 1), (1, 2), (2, 1), (2, 2))
QUERY = people((5, 1), (6, 2))
GALLERY = people((5, 2), (6, 1), (0, 1))


def splits(train=TRAIN, query=QUERY, gallery=GALLERY, **attributes) -> ReidSplits:
    return ReidSplits.from_images(
        "x", Path(), train=train, query=query, gallery=gallery, **attributes
    )


def found(made: ReidSplits) -> dict[str, Finding]:
    return {finding.kind: finding for finding in check_people(made)}


def test_nothing_is_found_where_nothing_is_unusual():
    assert found(splits()) == {}
    assert check_counts(splits()) == []
    assert check_counts(splits(published={"train": Counts(4, 2, 2), "query": Counts(2, 2)})) == []


def test_counts_other_than_the_published_ones_are_a_warning():
    made = splits(published={"train": Counts(4, 3, 2), "query": Counts(2, 2)})
    (finding,) = check_counts(made)
    assert finding.level == "warning"
    assert finding.items == [{"split": "train", "count": "ids", "found": 2, "published": 3}]


def test_the_table_shows_both_counts_and_marks_where_they_differ():
    made = splits(published={"train": Counts(4, 3, 2), "query": Counts(2, 2)})
    assert format_counts(made).split("\n") == [
        "split    images  ids      cameras  tracklets",
        "train    4 / 4   2 / 3 *  2 / 2    -",
        "query    2 / 2   2 / 2    2        -",
        "gallery  3       3        2        -",
        "found / published; * marks where they differ",
    ]
    assert "published" not in format_counts(splits())
    assert "*" not in format_counts(splits())


def test_people_in_train_and_test_are_a_warning_unless_pids_start_again():
    query = [*QUERY, ReidImage("a.png", 2, 1)]
    gallery = [*GALLERY, ReidImage("b.png", 2, 2)]
    finding = found(splits(query=query, gallery=gallery))["shared_pids"]
    assert finding.level == "warning"
    assert finding.items == [{"pid": 2}]
    assert found(splits(query=query, gallery=gallery, same_numbering=False)) == {}


def test_train_identities_with_one_image_or_one_camera_are_found():
    result = found(splits(train=[*TRAIN, *people((3, 1), (4, 2), (4, 2))]))
    assert result["single_images"].items == [{"pid": 3}]
    assert result["single_cameras"].items == [{"pid": 3, "camera": 1}, {"pid": 4, "camera": 2}]
    assert {finding.level for finding in result.values()} == {"warning"}


def test_a_few_of_many_are_only_noted():
    many = people(*((pid, camid) for pid in range(10, 30) for camid in (1, 2)))
    result = found(splits(train=[*many, *people((3, 1))]))
    assert set(result) == {"single_images", "single_cameras"}
    assert verdict(result.values()) == "OK"


def test_cameras_do_not_matter_where_they_are_not_known():
    images = [ReidImage(f"{i}.png", 1 + i // 2, i) for i in range(4)]
    made = splits(train=[*images, *people((3, 9), (3, 9))], has_cameras=False)
    assert found(made) == {}


def test_queries_without_a_match_under_another_camera_are_found():
    query = [*QUERY, ReidImage("only here.png", 7, 1), ReidImage("same camera.png", 8, 3)]
    gallery = [*GALLERY, ReidImage("a.png", 8, 3)]
    finding = found(splits(query=query, gallery=gallery))["unmatched_queries"]
    assert finding.items == [
        {"path": "only here.png", "pid": 7, "camera": 1},
        {"path": "same camera.png", "pid": 8, "camera": 3},
    ]
    assert finding.level == "warning"
    assert "2 of 4 queries" in finding.text


def test_it_is_an_error_if_no_query_has_a_match():
    one_camera = [image._replace(camid=1) for image in (*QUERY, *GALLERY)]
    finding = found(splits(query=one_camera[:2], gallery=one_camera[2:]))["unmatched_queries"]
    assert finding.level == "error"


def test_queries_are_counted_by_tracklets_where_there_are_some():
    query = people((5, 1), (5, 1), (6, 9), (6, 9), (7, 1), (7, 1), tracklets=True)
    finding = found(splits(query=query))["unmatched_queries"]
    assert "1 of 3 queries" in finding.text
    assert finding.items == [{"path": "4.png", "pid": 7, "camera": 1}]


def test_a_data_set_may_be_there_to_be_trained_or_tested_on_only():
    assert found(splits(train=[])) == {}
    assert found(splits(query=[], gallery=[])) == {}


def test_the_verdict_is_the_worst_of_the_findings():
    note, warning, error = (Finding("x", level, "") for level in ("note", "warning", "error"))
    assert verdict([]) == verdict([note]) == "OK"
    assert verdict([warning, note]) == "warnings"
    assert verdict([note, error, warning]) == "errors"


def test_a_finding_is_told_with_its_first_cases_and_what_to_do():
    items = [{"pid": pid, "why": "gone"} for pid in range(4)]
    assert Finding("x", "note", "4 are gone", "Look for them.", items).lines(limit=2) == [
        "note: 4 are gone",
        "    pid 0: gone",
        "    pid 1: gone",
        "    and 2 more",
        "  -> Look for them.",
    ]
