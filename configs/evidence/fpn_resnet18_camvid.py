# Semantic FPN with ResNet-18 on CamVid, from random weights.
# python tools/train.py configs/evidence/fpn_resnet18_camvid.py
# Result: docs/evidence.md.
_base_ = '../_base_/recipes/camvid_adamw.py'
model = dict(
    backbone=dict(
        _delete_=True,
        type='StepNetResNet',
        depth=18,
        stage_with_step=(False, False, False, False),
        norm_eval=False,
        zero_init_residual=False,
    ),
    neck=dict(in_channels=[64, 128, 256, 512]),
)
