# python tools/analysis_tools/star_vs_sum.py \
#     configs/theory/demonet_star-vs-sum_digits.py
# Result: docs/stars.md.
_base_ = '../_base_/datasets/digits.py'
custom_imports = dict(imports=['mmext'], allow_failed_imports=False)
backbone = dict(
    type='DemoNet', depth=4, embed_dims=24, in_channels=1, patch_size=2
)
epochs = 60
batch_size = 100
lr = 1e-2
