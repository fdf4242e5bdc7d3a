"""From the name of one of timm's models to the RGA model that is made of it."""

from dataclasses import fields
from functools import partial
from typing import Any
from urllib.error import HTTPError

from timm.models import build_model_with_cfg, get_pretrained_cfg, model_entrypoint
from timm.models._builder import resolve_pretrained_cfg

from rga_timm.layers import change_class
from rga_timm.weights import (
    WeightsNotFoundError,
    find_weights,
    registered_checkpoint,
    weights_not_found_message,
)

from ._checkpoint import checkpoint_filter_fn
from ._rga import RGAConfig, RGAMixin


def create_rga(
    family: type[RGAMixin],
    variant: str,
    backbone: str,
    pretrained: bool = False,
    feature_cfg: dict[str, Any] | None = None,
    **kwargs: Any,
) -> Any:
    """Create the RGA model of one of timm's models.

    Args:
        family: The class of the model, a subclass of timm's class of the backbone.
        variant: Name under which the RGA model is registered.
        backbone: timm's name of the backbone.
        pretrained: Load the weights of the variant's tag.
        feature_cfg: How timm extracts the features of this family.
        **kwargs: Fields of :class:`RGAConfig`; arguments of timm's model, such as ``in_chans``;
            and timm's own, such as ``features_only``.

    Raises:
        WeightsNotFoundError: If the weights are neither here nor on the Hub.
        ValueError: If they are damaged, or as :func:`make_rga`.
    """
    build = partial(
        build_model_with_cfg,
        partial(make_rga, family, backbone),
        variant,
        pretrained,
        pretrained_filter_fn=checkpoint_filter_fn,
        feature_cfg=feature_cfg,
    )
    if not pretrained:
        return build(**kwargs)
    overlay = kwargs.pop("pretrained_cfg_overlay", None) or {}
    try:
        cfg = resolve_pretrained_cfg(variant, kwargs.get("pretrained_cfg"), overlay)
    except RuntimeError as error:
        name = f"{variant}.{kwargs['pretrained_cfg']}"
        raise WeightsNotFoundError(
            f"no weights of {name}: timm knows no such tag. timm.list_pretrained('{variant}*') "
            "lists the tags; a folder is loaded by its path, 'local-dir:FOLDER'"
        ) from error
    if cfg.source or cfg.file or cfg.state_dict:  # what create_model was given itself
        return build(pretrained_cfg_overlay=overlay, **kwargs)
    name = f"{variant}.{cfg.tag}"
    found = {} if "hf_hub_id" in overlay else find_weights(name, cfg, kwargs.get("cache_dir"))
    try:
        return build(pretrained_cfg_overlay={**found, **overlay}, **kwargs)
    except (OSError, HTTPError) as error:  # of the backbone's ImageNet weights
        raise WeightsNotFoundError(weights_not_found_message(name, cfg, error)) from error


def make_rga(family: type[RGAMixin], backbone: str, **kwargs: Any) -> Any:
    """Make timm's model of a backbone, with relation attention and a re-id head.

    Args:
        family: The class of the result.
        backbone: timm's name.
        **kwargs: Fields of :class:`RGAConfig`, and arguments of timm's model, such as ``in_chans``,
            ``drop_path_rate``, ``device`` and ``dtype``; it refuses unknown ones.

    Raises:
        ValueError: As :class:`RGAConfig`, or for a size that is too small, a last stage whose
            stride cannot be removed, or a family that is not one of the backbone.
    """
    ours = {field.name for field in fields(RGAConfig)} & kwargs.keys()
    config = RGAConfig(backbone, **{name: kwargs.pop(name) for name in ours})
    args = family.backbone_args(config.img_size, config.global_pool)
    model: Any = model_entrypoint(backbone)(**{"num_classes": 0, **args, **kwargs})
    # timm's own constructors know how each architecture is put together; instead of spelling that
    # out again, the finished model becomes one of ours. Nothing of its state depends on the class.
    change_class(model, family)
    # What timm noted of the plain backbone would go before what it will note of this model.
    model.__dict__.pop("_traits", None)
    model.add_rga(config)
    return model


def reid_cfg(**kwargs: Any) -> dict[str, Any]:
    """The pretrained config that all RGA models share, with these changes."""
    cfg = {
        "url": "",
        "num_classes": 0,  # ImageNet weights come without identities
        "input_size": (3, 256, 128),
        "fixed_input_size": True,  # what makes timm pass img_size to the model
        "crop_pct": 1.0,
        "crop_mode": "squash",  # re-id resizes to the input size, whatever the aspect ratio
        "classifier": "fc",
        "paper_name": "Relation-Aware Global Attention for Person Re-identification",
        "paper_ids": "arXiv:1904.02998",
        **kwargs,
    }
    height, width = cfg["input_size"][1:]
    return {"pool_size": (height // 16, width // 16), **cfg}


def imagenet_cfg(weights: str, **kwargs: Any) -> dict[str, Any]:
    """The config of an RGA model that starts from ImageNet weights of its backbone.

    Args:
        weights: timm's name of them, model and tag, in whose repository on the Hub they lie.
        **kwargs: Changes.
    """
    kept = ("hf_hub_id", "license", "origin_url", *_PREPROCESSING)
    return reid_cfg(**_from_timm(weights, kept) | kwargs)


def checkpoint_cfg(name: str) -> dict[str, Any]:
    """The config of a re-identification checkpoint of this project, from the package's manifest.

    Args:
        name: Model and tag.

    Raises:
        ValueError: If the manifest does not list it.
    """
    return reid_cfg(**registered_checkpoint(name))


def test_cfg(weights: str, **kwargs: Any) -> dict[str, Any]:
    """The config of a family's small model for tests, on images of 64x32, without weights.

    Args:
        weights: timm's name of those whose preprocessing it shares.
        **kwargs: Changes.
    """
    return reid_cfg(input_size=(3, 64, 32), **_from_timm(weights, _PREPROCESSING), **kwargs)


_PREPROCESSING = ("mean", "std", "interpolation", "first_conv")


def _from_timm(weights: str, names: tuple[str, ...]) -> dict[str, Any]:
    """These entries of timm's own config of some weights."""
    source: Any = get_pretrained_cfg(weights)
    if source is None:
        raise ValueError(f"timm knows no weights {weights!r}")
    return {name: getattr(source, name) for name in names}
