"""From the name of one of timm's models to the RGA model that is made of it."""

from functools import partial
from typing import Any
from urllib.error import HTTPError

from timm.models import build_model_with_cfg, get_pretrained_cfg, model_entrypoint
from timm.models._builder import resolve_pretrained_cfg

from rga_timm.weights import WeightsNotFoundError, both_ways, find_weights, hub_id

from ._checkpoint import checkpoint_filter_fn
from ._rga import RGAMixin, Size, check_num_classes, check_reduction, check_relation, to_size


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
        **kwargs: Arguments of :func:`make_rga`, and timm's own, such as ``features_only``.

    Raises:
        WeightsNotFoundError: If the weights are neither in the local weights folder nor to be had
            from the Hub.
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
    cfg = resolve_pretrained_cfg(
        variant, kwargs.get("pretrained_cfg"), kwargs.get("pretrained_cfg_overlay")
    )
    if cfg.source or cfg.file or cfg.state_dict:  # what create_model was given itself
        return build(**kwargs)
    name = f"{variant}.{cfg.tag}"
    overlay = kwargs.pop("pretrained_cfg_overlay", None) or {}
    if "hf_hub_id" not in overlay and (found := find_weights(name, cfg, kwargs.get("cache_dir"))):
        return build(pretrained_cfg_overlay={**found, **overlay}, **kwargs)
    try:
        return build(pretrained_cfg_overlay=overlay, **kwargs)
    except (OSError, HTTPError) as error:  # of the backbone's ImageNet weights
        source = f"{cfg.hf_hub_id} on the Hub" if cfg.hf_hub_id else str(cfg.url)
        raise WeightsNotFoundError(both_ways(name, source, error)) from error


def make_rga(
    family: type[RGAMixin],
    backbone: str,
    img_size: int | Size = (256, 128),
    native_size: int | Size = (256, 128),
    relation: str = "sc",
    reduction: int = 8,
    zero_init_attention: bool = False,
    num_classes: int = 0,
    global_pool: str = "avg",
    drop_rate: float = 0.0,
    **kwargs: Any,
) -> Any:
    """Timm's model of a backbone, with relation attention after its stages and a re-id head.

    Args:
        family: The class of the result.
        backbone: timm's name.
        img_size: (height, width) of the images in pixels; the relation layers depend on it.
        native_size: (height, width) in pixels which sets the widths of the relation layers. It
            belongs to the checkpoint, ``img_size`` to its use: leave it at the variant's own
            unless a checkpoint was made with another.
        relation: ``'sc'`` (RGA-SC), ``'s'``, ``'c'``, ``'cs'``, ``'parallel'``, or ``'none'`` for
            the baseline without attention.
        reduction: The paper's r.
        zero_init_attention: Start with attention weights that are all equal instead of random, for
            training from scratch.
        num_classes: Identities of the classifier; 0 for none, then the output is the embedding.
        global_pool: timm's pooling type; ``''`` gives unpooled feature maps and no neck.
        drop_rate: Dropout on the embedding before the classifier.
        **kwargs: Arguments of timm's model, such as ``in_chans``, ``drop_path_rate``, ``device``
            and ``dtype``; it refuses unknown ones.

    Raises:
        ValueError: For an unknown relation, a size that is none or too small, a reduction or a
            number of classes out of range, or a last stage whose stride cannot be removed.
    """
    check_relation(relation)
    check_num_classes(num_classes)
    check_reduction(reduction)
    img_size = to_size(img_size, "img_size")
    native_size = to_size(native_size, "native_size")
    args = {"num_classes": 0, **family.backbone_args(img_size, global_pool), **kwargs}
    model: Any = model_entrypoint(backbone)(**args)
    # timm's own constructors know how each architecture is put together; instead of spelling that
    # out again, the finished model becomes one of ours. Nothing of its state depends on the class.
    model.__class__ = family
    # What timm noted of the plain backbone would go before what it will note of this model.
    model.__dict__.pop("_traits", None)
    model.add_rga(
        backbone,
        img_size,
        native_size,
        relation,
        reduction,
        zero_init_attention,
        num_classes,
        global_pool,
        drop_rate,
    )
    return model


def reid_cfg(**kwargs: Any) -> dict[str, Any]:
    """What the pretrained configs of all RGA models share."""
    return {
        "url": "",
        "num_classes": 0,  # ImageNet weights come without identities
        "input_size": (3, 256, 128),
        "fixed_input_size": True,  # what makes timm pass img_size to the model
        "pool_size": (16, 8),
        "crop_pct": 1.0,
        "crop_mode": "squash",  # re-id resizes to the input size, whatever the aspect ratio
        "classifier": "fc",
        "paper_name": "Relation-Aware Global Attention for Person Re-identification",
        "paper_ids": "arXiv:1904.02998",
        **kwargs,
    }


def imagenet_cfg(weights: str, **kwargs: Any) -> dict[str, Any]:
    """The config of an RGA model that starts from ImageNet weights of its backbone.

    Args:
        weights: timm's name of them, model and tag, in whose repository on the Hub they lie.
        **kwargs: What differs.
    """
    kept = ("hf_hub_id", "license", "origin_url", *_PREPROCESSING)
    return reid_cfg(**_from_timm(weights, kept) | kwargs)


def checkpoint_cfg(name: str, version: int, weights: str, **kwargs: Any) -> dict[str, Any]:
    """The config of a re-identification checkpoint of this project.

    Args:
        name: Model and tag.
        version: Of the checkpoint, as :func:`hub_id` says.
        weights: timm's name of the ImageNet weights whose preprocessing it shares.
        **kwargs: What differs.
    """
    kept = _from_timm(weights, _PREPROCESSING)
    return reid_cfg(hf_hub_id=hub_id(name, version), **kept | kwargs)


def test_cfg(weights: str, **kwargs: Any) -> dict[str, Any]:
    """The config of a family's small model for tests, on images of 64x32, without weights.

    Args:
        weights: timm's name of those whose preprocessing it shares.
        **kwargs: What differs.
    """
    kept = _from_timm(weights, _PREPROCESSING)
    return reid_cfg(**TEST_SIZES, **kept, **kwargs)


# Of the small models for tests.
TEST_SIZES: dict[str, Any] = {"input_size": (3, 64, 32), "pool_size": (4, 2)}

_PREPROCESSING = ("mean", "std", "interpolation", "first_conv")


def _from_timm(weights: str, names: tuple[str, ...]) -> dict[str, Any]:
    """These entries of timm's own config of some weights."""
    source: Any = get_pretrained_cfg(weights)
    if source is None:
        raise ValueError(f"timm knows no weights {weights!r}")
    return {name: getattr(source, name) for name in names}
