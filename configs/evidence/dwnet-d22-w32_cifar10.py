# DWNet with two stages of two blocks, patches of 2x2, kernels of 5x5.
# python tools/train.py configs/evidence/dwnet-d22-w32_cifar10.py
# Result: docs/evidence.md.
_base_ = '../_base_/recipes/cifar10_adamw.py'
model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='DWNet',
        arch=dict(
            embed_dims=32,
            depths=(2, 2),
            channels_per_group=8,
            drop_path_rate=0.0,
        ),
        patch_size=2,
        window_size=5,
        out_indices=-1,
        final_norm=True,
    ),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=10, in_channels=64),
)
