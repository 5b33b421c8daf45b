"""LightNL and squeeze-excite under weights, against the weighted sum of what they mix."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nni.nas.strategy import DARTS

from search_space import LightNLSpace, build
from search_space.lightnl.products import lightnl_product
from search_space.mixed import MixedSqueezeExcite, mixed_product, prefix_mask
from search_space.skeleton import Row, Skeleton


@settings(deadline=None, max_examples=100)
@given(
    st.tuples(st.integers(1, 2), st.integers(1, 12), st.integers(1, 7), st.integers(1, 7)),
    st.sets(st.sampled_from([0.01, 0.125, 0.25, 0.5, 1.0]), min_size=1),
    st.sets(st.integers(1, 8), min_size=1, max_size=3),
    st.integers(0, 2**31),
)
def test_the_mixed_product_is_the_weighted_sum_of_the_products(shape, ratios, strides, seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, dtype=torch.float64, generator=generator)
    ratios, strides = (
        {c: torch.rand((), dtype=torch.float64, generator=generator) for c in cs} for cs in (ratios, strides)
    )
    expected = sum(
        w_r * w_s * lightnl_product(x, ratio, stride)
        for ratio, w_r in ratios.items()
        for stride, w_s in strides.items()
    )
    mixed = mixed_product(x, ratios, strides)
    torch.testing.assert_close(mixed, expected)


def test_a_prefix_mask_weighs_each_channel_by_the_prefixes_that_hold_it():
    mask = prefix_mask({1: 0.25, 3: 0.5, 4: 0.25}, torch.zeros(()))
    assert mask.tolist() == pytest.approx([1, 0.75, 0.75, 0.25])


def test_mixed_squeeze_excite_is_the_weighted_sum_over_its_ratios():
    torch.manual_seed(0)
    row = Row(channels=8, expansion=2, se=(0, 0.25, 0.5))
    skeleton = Skeleton('tiny', 8, 2, stem_channels=8, stem_stride=1, head_channels=4, rows=(row,))
    supernet = DARTS().mutate_model(LightNLSpace(skeleton))
    (mixed,) = (module for module in supernet.modules() if isinstance(module, MixedSqueezeExcite))
    x = torch.randn(2, 16, 5, 5)
    weights = mixed._arch_alpha['row01/se'].softmax(0)
    expected = 0
    for ratio, weight in zip(row.se, weights, strict=True):
        alone = build(skeleton, {'row01/se': ratio}).rows.row01.body
        if ratio:
            alone.se.load_state_dict(mixed.freeze_weight(channels=16, in_channels=8, ratio=ratio))
        expected = expected + weight * (alone.se(x) if ratio else x)
    torch.testing.assert_close(mixed(x), expected)
