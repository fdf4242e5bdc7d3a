"""Make and register the RGA model of one of timm's models."""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from functools import partial
from typing import Any
from urllib.error import HTTPError

from safetensors import SafetensorError
from timm.models import (
    build_model_with_cfg,
    generate_default_cfgs,
    get_pretrained_cfg,
    model_entrypoint,
    register_model,
)
from timm.models._builder import resolve_pretrained_cfg

from rga_timm.layers import change_class
from rga_timm.weights import (
    WeightsNotFoundError,
    damaged_message,
    find_weights,
    registered_checkpoint,
    weights_not_found_message,
)
from rga_timm.weights_file import forget_weights, read_weights

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
    """Create the RGA model ``variant`` of a backbone, with arguments for it and for timm.

    Raises:
        WeightsNotFoundError: If the weights are neither on this machine nor on the Hub.
        ValueError: If they are damaged, or as :func:`make_rga`.
    """
    options = {"pretrained_filter_fn": checkpoint_filter_fn, "feature_cfg": feature_cfg}
    make = partial(make_rga, family, backbone)
    build = partial(build_model_with_cfg, make, variant, pretrained, **options)
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
    if cfg.file and not (cfg.source or cfg.state_dict):
        overlay = {**overlay, "state_dict": read_weights(cfg.file)}
        return forget_weights(build(pretrained_cfg_overlay=overlay, **kwargs))
    if cfg.source or cfg.state_dict:  # the caller says where the weights are
        return build(pretrained_cfg_overlay=overlay, **kwargs)
    name = f"{variant}.{cfg.tag}"
    found = {} if "hf_hub_id" in overlay else find_weights(name, cfg, kwargs.get("cache_dir"))
    try:
        return build(pretrained_cfg_overlay={**found, **overlay}, **kwargs)
    except SafetensorError as error:
        message = damaged_message(cfg.hf_hub_id, error, kwargs.get("cache_dir"))
        raise ValueError(f"{name}: {message}") from error
    except (OSError, HTTPError) as error:  # of the backbone's ImageNet weights
        raise WeightsNotFoundError(weights_not_found_message(name, cfg, error)) from error


def make_rga(family: type[RGAMixin], backbone: str, **kwargs: Any) -> Any:
    """Make timm's model of a backbone, with relation attention and a re-id head.

    ``kwargs`` are fields of :class:`RGAConfig`, and arguments of timm's model, such as
    ``in_chans``, ``drop_path_rate``, ``device`` and ``dtype``.

    Raises:
        ValueError: As :class:`RGAConfig`, or for a size that is too small, a last stage whose
            stride cannot be removed, or a family that does not fit the backbone.
    """
    ours = {field.name for field in fields(RGAConfig)} & kwargs.keys()
    config = RGAConfig(backbone, **{name: kwargs.pop(name) for name in ours})
    args = family.backbone_args(config.img_size, config.global_pool)
    model: Any = model_entrypoint(backbone)(**{"num_classes": 0, **args, **kwargs})
    # timm's own constructors know how each architecture is built, so its finished model becomes one
    # of ours. Nothing of its state depends on the class.
    change_class(model, family)
    model.__dict__.pop("_traits", None)  # which timm recorded of the plain backbone
    model.add_rga(config)
    return model


def register_variant(
    module: str,
    family: type[RGAMixin],
    name: str,
    weights: str,
    *,
    cfgs: dict[str, dict[str, Any]] | None = None,
    checkpoints: Sequence[str] = (),
    for_tests: bool = False,
    feature_cfg: Mapping[str, Any] | Callable[..., dict[str, Any]] | None = None,
    **defaults: Any,
) -> None:
    """Register the RGA model of one of timm's models, with its tags.

    The entrypoint becomes a function of the module, ``NAME(pretrained=False, **kwargs)``. The first
    tag is the model's default.

    Args:
        module: ``__name__`` of the family's file.
        family: The class of the model, a subclass of timm's class of the backbone.
        name: Name of the model.
        weights: timm's name of the backbone and its ImageNet weights, ``MODEL.TAG``. The new model
            has their preprocessing, and a tag of the same name.
        cfgs: Other tags in place of that one, each with its pretrained config.
        checkpoints: Tags of this project's checkpoints, which come first.
        for_tests: A small model on images of 64x32; its default tag is ``untrained``.
        feature_cfg: timm's options of ``features_only``, or a function from the model's arguments
            to them.
        **defaults: Arguments of the model unless the caller gives others.
    """
    backbone, _, tag = weights.partition(".")
    if for_tests:
        cfgs = {"untrained*": _reid_cfg(input_size=(3, 64, 32), **_from_timm(weights))}
        defaults = {"native_size": (64, 32), **defaults}
    tags = {one: _reid_cfg(**registered_checkpoint(f"{name}.{one}")) for one in checkpoints}
    tags |= cfgs or {tag: imagenet_cfg(weights)}

    def entrypoint(pretrained: bool = False, **kwargs: Any) -> Any:
        kwargs = {**defaults, **kwargs}
        features = feature_cfg(**kwargs) if callable(feature_cfg) else dict(feature_cfg or {})
        return create_rga(family, name, backbone, pretrained, features, **kwargs)

    entrypoint.__name__ = entrypoint.__qualname__ = name
    entrypoint.__module__ = module
    entrypoint.__doc__ = f"timm's {backbone} as {family.__name__}."
    namespace = vars(sys.modules[module])
    namespace[name] = entrypoint
    default_cfgs = generate_default_cfgs({f"{name}.{tag}": cfg for tag, cfg in tags.items()})
    namespace.setdefault("default_cfgs", {}).update(default_cfgs)  # where timm looks for them
    register_model(entrypoint)


def imagenet_cfg(weights: str, **changes: Any) -> dict[str, Any]:
    """The pretrained config of an RGA model that starts from ImageNet weights, ``MODEL.TAG``."""
    return _reid_cfg(**_from_timm(weights, "hf_hub_id", "license", "origin_url") | changes)


def _reid_cfg(**kwargs: Any) -> dict[str, Any]:
    """The pretrained config that all RGA models share, with further entries."""
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


def _from_timm(weights: str, *names: str) -> dict[str, Any]:
    """The preprocessing, and the named entries, of timm's own config of some weights."""
    source: Any = get_pretrained_cfg(weights)
    if source is None:
        raise ValueError(f"timm knows no weights {weights!r}")
    names = ("mean", "std", "interpolation", "first_conv", *names)
    return {name: getattr(source, name) for name in names}
