"""Write a checkpoint's model card from its config; the text is in card.md.j2."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from rga_timm.evaluation import Report, format_intervals, format_table
from rga_timm.hub.publish.licences import HUB_LICENCES, TERMS

_SCORES = {"mAP": "mAP", "mAP_trapezoid": "mAP, trapezoid AP", "mINP": "mINP", "rank-1": "rank-1"}


def format_card(config: Mapping[str, Any], size: int) -> str:
    """Write the card, in Markdown with the Hub's metadata, from config and bytes of weights."""
    reid = config["reid"]
    reports = reports_of(reid)
    start = reid.get("started_from") or {}
    kinds = ("repository", "name", "file", "architecture")
    machine = reid.get("cost", {}).get("machine", {})
    card = ModelCard.from_template(
        _metadata(reid, reports),
        template_path=str(Path(__file__).with_name("card.md.j2")),
        architecture=config["architecture"],
        reid=reid,
        size=size,
        main=reports[0],
        table=format_table(reports),
        intervals=format_intervals(reports[:1]),
        last_trained_on=[one["name"] for one in reid["trained_on"] if not one.get("earlier")],
        drawn=all(source["name"] == "pedestrians" for source in reid["trained_on"]),
        started_from=next((start[kind] for kind in kinds if start.get(kind)), None),
        machine_software={k: v for k, v in machine.items() if k not in ("device", "threads")},
        terms=TERMS.get(reid["license"], reid["license"]),
    )
    return f"{card}\n"


def reports_of(reid: Mapping[str, Any]) -> list[Report]:
    """The recorded evaluations of a checkpoint, the main one first."""
    fields = ("model", "dataset", "protocol", "metrics", "checkpoint", "software", "weights")
    main = {name: reid[name] for name in (*fields, "units") if name in reid}
    return [Report.from_dict(report) for report in (main, *reid.get("also_tested_on", ()))]


def _metadata(reid: Mapping[str, Any], reports: list[Report]) -> ModelCardData:
    """The Hub's metadata, with the results for the model index."""
    licence = reid["license"]
    named = {} if licence in HUB_LICENCES else {"license_name": licence}
    return ModelCardData(
        library_name="timm",
        license=licence if licence in HUB_LICENCES else "other",
        pipeline_tag="image-feature-extraction",
        tags=["timm", "rga_timm", "person-re-identification", "image-retrieval"],
        model_name=reid["name"],
        eval_results=[result for report in reports for result in _results(report)],
        **named,
    )


def _results(report: Report) -> list[EvalResult]:
    """A report's scores for the model index, in percent."""
    return [
        EvalResult(
            task_type="image-feature-extraction",
            task_name="Person re-identification",
            dataset_type=str(report.dataset["name"]),
            dataset_name=str(report.dataset["name"]),
            dataset_config=report.protocol.summary(),  # keeps the protocols apart
            metric_type=kind,
            metric_name=f"{name} (%)",
            metric_value=round(100 * report.scores[kind], 2),
        )
        for kind, name in _SCORES.items()
    ]
