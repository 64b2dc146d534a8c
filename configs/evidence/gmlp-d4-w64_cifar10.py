# gMLP of depth 4 and width 64, patches of 4x4 pixels.
# python tools/train.py configs/evidence/gmlp-d4-w64_cifar10.py
# Result: docs/evidence.md.
_base_ = '../_base_/recipes/cifar10_adamw.py'
model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='GMLP',
        arch=dict(embed_dims=64, depth=4, mlp_ratio=6, drop_path_rate=0.0),
        patch_size=4,
        window_size=8,
    ),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=10, in_channels=64),
)
optim_wrapper = dict(optimizer=dict(lr=6e-3))
param_scheduler = dict(eta_max=6e-3)
