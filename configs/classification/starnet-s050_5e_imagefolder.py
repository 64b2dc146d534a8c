# A classifier on one folder of images per class (see docs/pretraining.md).
# MMEXT_DATA=data python tools/train.py \
#     configs/classification/starnet-s050_5e_imagefolder.py
# Result: docs/results.md.
_base_ = [
    'mmpretrain::_base_/default_runtime.py',
    '../_base_/datasets/imagefolder_64.py',
]
custom_imports = dict(imports=['mmext'], allow_failed_imports=False)
model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='StarNet', arch='s050', out_indices=(3,), final_norm=True
    ),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=5, in_channels=128, topk=(1,)),
)
train_cfg = dict(by_epoch=True, max_epochs=5, val_interval=1)
val_cfg = dict()
test_cfg = dict()
optim_wrapper = dict(optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05))
param_scheduler = dict(type='CosineAnnealingLR', T_max=5, by_epoch=True)
randomness = dict(seed=0)
