# ResNet-20 with SRM.
# python tools/train.py configs/evidence/resnet20-srm_cifar10.py
# Result: docs/evidence.md.
_base_ = './resnet20_cifar10.py'
model = dict(
    backbone=dict(
        plugins=[dict(cfg=dict(type='SRMAttention'), position='after_conv2')]
    )
)
