"""The model card of a checkpoint, from its config alone."""

import textwrap
from collections.abc import Iterable, Mapping
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from rga_timm.evaluation import Protocol, Report, format_intervals, format_table
from rga_timm.hub.publish.licences import HUB_LICENCES, RESEARCH_ONLY

_SCORES = (
    ("mAP", "mAP"),
    ("mAP_trapezoid", "mAP, trapezoid AP"),
    ("mINP", "mINP"),
    ("rank-1", "rank-1"),
)

_TERMS = {
    RESEARCH_ONLY: "Research use only: the weights carry the terms of the data that they were "
    "trained on, which was published for research.",
    "apache-2.0": "Apache-2.0.",
}

_CITATION = """\
```bibtex
@inproceedings{zhang2020relation,
  title     = {Relation-Aware Global Attention for Person Re-identification},
  author    = {Zhang, Zhizheng and Lan, Cuiling and Zeng, Wenjun and Jin, Xin and Chen, Zhibo},
  booktitle = {CVPR},
  year      = {2020}
}
```"""

_USES = """\
Research on re-identification, image retrieval and attention; matching of people between cameras
where that is lawful and the people concerned know of it.

Re-identification tracks people without their doing. Do not use the model for covert surveillance,
for identifying individuals by name, for decisions about a person's rights, work, credit or freedom,
or against the law where the cameras stand. The nearest image is a guess: with any threshold, some
pairs of strangers pass it."""

_LIMITS = """\
- Clothing carries most of the signal: people who change clothes are lost, people dressed alike are
  confused.
- Accuracy falls steeply on cameras, places and seasons that differ from the training data. Measure
  on your own.
- Error rates between groups of people were not measured."""

_DRAWN = """\
- Trained on people drawn by a program. It shows that the tools work, and knows nothing of real
  people."""

_REAL = """\
- The public data sets come from few places and do not represent skin tones, ages, body shapes,
  mobility aids or dress evenly."""


def format_card(config: Mapping[str, Any], size: int) -> str:
    """The card, with the metadata that the Hub reads at its top.

    Args:
        config: ``config.json``, with the section ``reid``.
        size: Of the weights file, bytes.

    Returns:
        Markdown.
    """
    reid = config["reid"]
    reports = reports_of(reid)
    drawn = all(source["name"] == "pedestrians" for source in reid["trained_on"])
    sections = [
        f"---\n{_metadata(reid, reports).to_yaml()}\n---",
        f"# {reid['name']}",
        _summary(config, size, drawn),
        f"## Use\n\n{_usage(reid)}",
        f"## Evaluation\n\n{_evaluation(reports)}",
        f"## Training\n\n{_training(reid)}",
        f"## Intended use, and misuse\n\n{_USES}",
        f"## Limits\n\n{_LIMITS}\n{_DRAWN if drawn else _REAL}",
        f"## Licence\n\n{_TERMS.get(reid['license'], reid['license'])}",
        f"## Citation\n\n{_CITATION}",
    ]
    return "\n\n".join(sections) + "\n"


def reports_of(reid: Mapping[str, Any]) -> list[Report]:
    """The evaluations that a checkpoint records, the main one first."""
    fields = ("model", "dataset", "protocol", "metrics", "checkpoint", "software", "weights")
    main = {name: reid[name] for name in (*fields, "units") if name in reid}
    return [Report.from_dict(report) for report in (main, *reid.get("also_tested_on", ()))]


def _metadata(reid: Mapping[str, Any], reports: Iterable[Report]) -> ModelCardData:
    """As the Hub reads it, with the results of the model index."""
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
    """A report for the model index, in percent."""
    named = [(kind, name, report.scores[kind]) for kind, name in _SCORES]
    return [
        EvalResult(
            task_type="image-feature-extraction",
            task_name="Person re-identification",
            dataset_type=str(report.dataset["name"]),
            dataset_name=str(report.dataset["name"]),
            # Results of one data set stand together unless its configuration differs.
            dataset_config=report.protocol.summary(),
            metric_type=kind,
            metric_name=f"{name} (%)",
            metric_value=round(100 * value, 2),
        )
        for kind, name, value in named
    ]


def _summary(config: Mapping[str, Any], size: int, drawn: bool) -> str:
    """What it is, in a few lines."""
    reid = config["reid"]
    height, width = reid["protocol"]["img_size"]
    people = "drawn people" if drawn else "people"
    return f"""\
Embeds an image of a person, such that images of the same person are near to each other. A
`{config["architecture"]}` of the package rga_timm, a timm backbone with Relation-Aware Global
Attention ([CVPR 2020](https://arxiv.org/abs/1904.02998)), trained on {_and(_names(reid))}.

- **Input**: RGB, one upright person cut out by a detector, {height}x{width} pixels; other sizes by
  `img_size=`
- **Output**: {reid["golden_embedding"]["width"]} numbers, to be compared by cosine distance
- **Weights**: {size / 1e6:.1f} MB, {reid["weights_dtype"]}, version {reid["version"]}
- **Trained on**: images of {people}{_cost(reid)}"""


def _cost(reid: Mapping[str, Any]) -> str:
    """Size, arithmetic and time, for a list; nothing where they were not measured."""
    cost = reid.get("cost")
    if not cost:
        return ""
    machine = dict(cost["machine"])
    where = f"{machine.pop('device')}, {_count(int(machine.pop('threads')), 'thread')}"
    versions = ", ".join(f"{name} {version}" for name, version in machine.items())
    times = [
        f"{row['ms']:.0f} ms for {_count(row['batch_size'], 'image')}"
        + (f" ({row['ratio']:.2f} times)" if "ratio" in row else "")
        for row in cost["latency"]
    ]
    alternative = ""
    if any("ratio" in row for row in cost["latency"]):
        alternative = "; in brackets, against the same network without attention, in the same run"
    text = (
        f"**Cost**: {cost['parameters'] / 1e6:.2f} M parameters, {cost['gflops']:.2f} GFLOPs an "
        f"image (a multiplication and an addition being two); {_and(times)} ({where}, float32, "
        f"{versions}{alternative})"
    )
    return "\n" + textwrap.fill(
        text, 100, initial_indent="- ", subsequent_indent="  ", break_on_hyphens=False
    )


def _count(number: int, thing: str) -> str:
    """How many, in singular or plural."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def _usage(reid: Mapping[str, Any]) -> str:
    """The code by which it is used."""
    return f"""\
```python
import rga_timm, timm, torch
from PIL import Image

model = timm.create_model("{reid["name"]}", pretrained=True, num_classes=0).eval()
# or from the repository itself: "hf-hub:{reid["repository"]}"
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
a, b = model(torch.stack([transform(Image.open(f).convert("RGB")) for f in ("a.jpg", "b.jpg")]))
print(torch.cosine_similarity(a, b, dim=0))  # higher: more likely the same person
```

Fine-tune it on your own images:

```bash
rga-timm finetune --model {reid["name"]} --dataset folder --data-dir people
```"""


def _evaluation(reports: list[Report]) -> str:
    """Scores with the protocol, their intervals, and what they were computed with."""
    main = reports[0]
    data = main.dataset
    counts = ", ".join(
        f"{split}: {data[split]['images']:,} images of {data[split]['ids']:,} people"
        for split in ("query", "gallery")
        if split in data
    )
    versions = ", ".join(f"{name} {version}" for name, version in main.software.items())
    return "\n\n".join(
        part
        for part in (
            format_table(reports),
            format_intervals(reports[:1]),
            f"{data['name']}, {counts}; {_left_out(main.protocol)}. Fingerprint of the lists: "
            f"`{data.get('fingerprint')}`.",
            f"Computed with {versions}.",
        )
        if part
    )


def _left_out(protocol: Protocol) -> str:
    """What is left out of a query's gallery."""
    if protocol.cameras:
        return "images of the query's person under the query's camera are left out of its gallery"
    return "cameras are not known, and no image is left out of a gallery"


def _training(reid: Mapping[str, Any]) -> str:
    """Data, recipe and command."""
    lines = []
    for source in reid["trained_on"]:
        train = source.get("train")
        count = f": {train['images']:,} images of {train['ids']:,} people" if train else ""
        earlier = ", by the checkpoint that it started from" if source.get("earlier") else ""
        lines.append(f"- {source['name']}{count}{earlier}")
    text = "\n".join(lines)
    if start := reid.get("started_from"):
        kinds = ("repository", "name", "file", "architecture")
        named = next(start[kind] for kind in kinds if start.get(kind))
        weights = f", weights with SHA-256 `{start['sha256']}`" if start.get("sha256") else ""
        text += f"\n\nStarted from {named}{weights}."
    if converted := reid.get("converted_from"):
        text += (
            f"\n\nConverted from `{converted['file']}` of {converted['code']}, SHA-256 "
            f"`{converted['sha256']}`."
        )
    for kind in ("note", "feature_note", "precision_note"):
        if note := reid.get(kind):
            text += f"\n\n{note}"
    text += f"\n\nBy rga_timm {reid['code_version']}:\n\n```bash\n{reid['command']}\n```"
    if "recipe.yaml" in reid["command"]:
        text += "\n\nThe recipe lies beside this card, and all options stand in `config.json`."
    return text


def _names(reid: Mapping[str, Any]) -> list[str]:
    """What it was trained on in the end."""
    return [source["name"] for source in reid["trained_on"] if not source.get("earlier")]


def _and(names: list[str]) -> str:
    """In a sentence."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
