# Semantic FPN with StepNet-18 on CamVid, from StepNet-18 of CIFAR-10.
# python tools/train.py configs/evidence/fpn_stepnet18-cifar10_camvid.py
# Result: docs/evidence.md.
_base_ = './fpn_stepnet18_camvid.py'
model = dict(
    backbone=dict(
        init_cfg=dict(
            type='Pretrained',
            checkpoint='work_dirs/stepnet18_cifar10-64/epoch_6.pth',
        ),
    ),
)
