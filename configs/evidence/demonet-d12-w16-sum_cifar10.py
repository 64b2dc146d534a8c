# DemoNet, depth 12, width 16, patches of 4x4 pixels: the sum of two branches.
# python tools/train.py configs/evidence/demonet-d12-w16-sum_cifar10.py
# Result: docs/evidence.md.
_base_ = '../_base_/recipes/cifar10_adamw.py'
model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='DemoNet',
        depth=12,
        embed_dims=16,
        patch_size=4,
        operation='sum',
        gap_before_final_norm=True,
    ),
    head=dict(type='LinearClsHead', num_classes=10, in_channels=16),
)
