# Semantic FPN with ResNet-18 on CamVid, from ResNet-18 of CIFAR-10.
# python tools/train.py configs/evidence/fpn_resnet18-cifar10_camvid.py
# Result: docs/evidence.md.
_base_ = './fpn_resnet18_camvid.py'
model = dict(
    backbone=dict(
        init_cfg=dict(
            type='Pretrained',
            checkpoint='work_dirs/resnet18_cifar10-64/epoch_6.pth',
        ),
    ),
)
